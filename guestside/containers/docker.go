package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

const (
	maxInspect  = 8 << 20          // bytes of an answer of Docker's
	maxJoins    = 8                // containers that share a namespace, in a row
	dockerLimit = 20 * time.Second // for all calls
)

// inspected is what matters of Docker's answer about a container.
type inspected struct {
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	State struct {
		Running bool `json:"Running"`
		Pid     int  `json:"Pid"`
	} `json:"State"`
	HostConfig struct {
		NetworkMode string `json:"NetworkMode"`
	} `json:"HostConfig"`
	NetworkSettings struct {
		SandboxKey string `json:"SandboxKey"`
	} `json:"NetworkSettings"`
}

func parseInspected(b []byte) (inspected, error) {
	var in inspected
	if err := json.Unmarshal(b, &in); err != nil {
		return inspected{}, fmt.Errorf("decode docker's answer: %w", err)
	}
	if !validID(in.ID) {
		return inspected{}, fmt.Errorf("decode docker's answer: container ID %.80q is malformed", in.ID)
	}
	return in, nil
}

// fromDocker asks Docker. It follows containers that share another's namespace
// to the one that it was made for.
func fromDocker(ctx context.Context, cfg Config, ref string) (vnic.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, dockerLimit)
	defer cancel()
	client, done := dockerClient(cfg.DockerSocket)
	defer done()
	asked, err := inspect(ctx, client, ref)
	if err != nil {
		return vnic.Container{}, err
	}
	out := vnic.Container{ID: asked.ID, Name: strings.TrimPrefix(asked.Name, "/")}
	holder, err := follow(ctx, client, asked)
	if err != nil {
		return out, err
	}
	out.Pod = holder.ID
	switch {
	case !asked.State.Running || asked.State.Pid < 1:
		return out, notRunning("it is stopped")
	case holder.HostConfig.NetworkMode == "host":
		return out, errHostNetwork
	}
	out.Netns, err = cfg.netns(asked.ID, asked.State.Pid, holder.NetworkSettings.SandboxKey)
	return out, err
}

// follow returns the container that c's network namespace was made for.
func follow(ctx context.Context, client *http.Client, c inspected) (inspected, error) {
	for range maxJoins {
		other, joined := strings.CutPrefix(c.HostConfig.NetworkMode, "container:")
		if !joined {
			return c, nil
		}
		next, err := inspect(ctx, client, other)
		if err != nil {
			return c, fmt.Errorf("it shares the network of container %.80q: %w", other, err)
		}
		c = next
	}
	return c, fmt.Errorf("it shares the network of a container that shares another's, and so on %d times: %w", maxJoins, vnic.ErrUnknownPod)
}

func dockerClient(socket string) (client *http.Client, done func()) {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{Transport: t}, t.CloseIdleConnections
}

// inspect asks for one container. Docker takes IDs, beginnings of them and names.
func inspect(ctx context.Context, client *http.Client, ref string) (inspected, error) {
	if !validID(ref) {
		return inspected{}, fmt.Errorf("%.80q is neither an ID nor a name: %w", ref, vnic.ErrInvalid)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/containers/"+url.PathEscape(ref)+"/json", nil)
	if err != nil {
		return inspected{}, fmt.Errorf("ask docker: %w", err)
	}
	resp, err := client.Do(req)
	if ctx.Err() != nil {
		return inspected{}, fmt.Errorf("ask docker: %w", ctx.Err())
	}
	if err != nil {
		return inspected{}, fmt.Errorf("ask docker: %w; is it running in this guest? %w", err, vnic.ErrUnknownContainer)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxInspect+1))
	switch {
	case err != nil:
		return inspected{}, fmt.Errorf("read docker's answer: %w", err)
	case len(b) > maxInspect:
		return inspected{}, fmt.Errorf("docker's answer is longer than %d bytes", maxInspect)
	case resp.StatusCode == http.StatusOK:
		return parseInspected(b)
	case resp.StatusCode < 500 || strings.Contains(message(b), "Multiple IDs"):
		return inspected{}, fmt.Errorf("docker says %q: %w", message(b), vnic.ErrUnknownContainer)
	}
	return inspected{}, fmt.Errorf("docker says %d %q", resp.StatusCode, message(b))
}

// message returns the text of an error of Docker's.
func message(b []byte) string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &m) != nil || m.Message == "" {
		m.Message = string(b)
	}
	return strings.TrimSpace(m.Message[:min(len(m.Message), 256)])
}
