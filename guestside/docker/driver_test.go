package docker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/docker"
	"github.com/brfuse/brfuse/vnic"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

const (
	createWeb = `{"NetworkID":"web","Options":{},"IPv4Data":[{"Pool":"0.0.0.0/0"}]}`
	ok        = "{}"
)

func endpointBody(id string) string { return fmt.Sprintf(`{"NetworkID":"web","EndpointID":%q}`, id) }

// TestParallel: calls about other endpoints don't wait for one that hangs, and
// those about the same one do.
func TestParallel(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, h, _ := newDriver(t, docker.Config{StateDir: dir})
		_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
		require.Equal(t, ok, body)
		_, body = ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("quick"))
		require.NotContains(t, body, "Err")

		h.hang(true)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, body := ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("slow"))
			assert.Contains(t, body, `"Err":"create endpoint slow: attach to network blue: context deadline exceeded`)
		})
		synctest.Wait()
		began := time.Now()
		for _, method := range []string{"Join", "EndpointOperInfo", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave"} {
			_, body := ask(t, d, "NetworkDriver."+method, endpointBody("quick"))
			assert.NotContains(t, body, "Err", method)
		}
		assert.Zero(t, time.Since(began))

		_, body = ask(t, d, "NetworkDriver.DeleteEndpoint", endpointBody("slow"))
		assert.Equal(t, ok, body)
		wg.Wait()
		assert.LessOrEqual(t, time.Since(began), 30*time.Second)
	})
}

// TestStop: a call that hangs is ended when the driver stops, and not left behind.
func TestStop(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, h, _ := newDriver(t, docker.Config{StateDir: dir, Timeout: time.Hour})
		_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
		require.Equal(t, ok, body)
		defer h.Hang("Attach")()
		ctx, stop := context.WithCancel(t.Context())
		p, served := newPipes(), make(chan error, 1)
		go func() { served <- docker.ServeOn(ctx, d, p) }()
		client := http.Client{Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
			DisableKeepAlives: true,
		}}
		answered := make(chan string, 1)
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker/NetworkDriver.CreateEndpoint", strings.NewReader(endpointBody("slow")))
			if !assert.NoError(t, err) {
				return
			}
			resp, err := client.Do(req)
			if !assert.NoError(t, err) {
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			assert.NoError(t, err)
			answered <- string(b)
		}()
		synctest.Wait()
		began := time.Now()
		stop()
		require.ErrorIs(t, <-served, context.Canceled)
		assert.Less(t, time.Since(began), 7*time.Second)
		assert.Contains(t, <-answered, `"Err":"create endpoint slow: attach to network blue: context canceled`)
		assert.Contains(t, docker.StateText(filepath.Join(dir, "docker.json")), "driver: endpoint slow is to be taken away\n")
	})
}

// TestNetworkGoes: a network is deleted while an endpoint in it is made.
func TestNetworkGoes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, h, _ := newDriver(t, docker.Config{StateDir: dir})
		_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
		require.Equal(t, ok, body)
		resume := h.Hang("Attach")
		var wg sync.WaitGroup
		wg.Go(func() {
			_, body := ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("ep"))
			assert.Contains(t, body, `"Err":"create endpoint ep: it or its network was deleted meanwhile: `)
		})
		synctest.Wait()
		_, body = ask(t, d, "NetworkDriver.DeleteNetwork", `{"NetworkID":"web"}`)
		require.Equal(t, ok, body)
		resume()
		wg.Wait()
		assert.Contains(t, docker.StateText(filepath.Join(dir, "docker.json")), "driver: endpoint ep is to be taken away\n")
	})
}

// TestHangUp: what was begun is ended although dockerd doesn't wait for it.
func TestHangUp(t *testing.T) {
	d, h, _ := newDriver(t, docker.Config{})
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/NetworkDriver.CreateEndpoint", strings.NewReader(endpointBody("ep"))))
	assert.NotContains(t, w.Body.String(), "Err")
	assert.Equal(t, "host: 0000000001 of ep on blue, 02:00:00:00:00:01, [10.1.0.2/24]\n", h.text())
}

// TestManyAtOnce has containers come and go at once; in the end nothing is left.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	d, h, g := newDriver(t, docker.Config{StateDir: dir})
	h.Slots = 64
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			body := endpointBody(fmt.Sprintf("ep%d", i))
			for _, method := range []string{"CreateEndpoint", "Join", "Leave", "DeleteEndpoint"} {
				_, answer := ask(t, d, "NetworkDriver."+method, body)
				assert.NotContains(t, answer, "Err")
			}
		})
	}
	wg.Wait()
	assert.Empty(t, h.text()+g.String())
	assert.Equal(t, "driver: is to be rebuilt\ndriver: network web is blue\n", docker.StateText(filepath.Join(dir, "docker.json")))
}

func TestDynamicPort(t *testing.T) {
	d, h, _ := newDriver(t, docker.Config{})
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	_, body = ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("ep"))
	require.NotContains(t, body, "Err")
	const program = `{"NetworkID":"web","EndpointID":"ep","Options":{"com.docker.network.portmap":[{"Proto":6,"Port":80},{"Proto":6,"Port":80,"HostPort":60000},{"Proto":132,"Port":80}]}}`
	_, body = ask(t, d, "NetworkDriver.ProgramExternalConnectivity", program)
	require.Equal(t, ok, body)
	first := ports(t, h)
	require.Len(t, first, 3)
	for _, m := range first {
		assert.GreaterOrEqual(t, m.HostPort, uint16(49153))
		assert.Equal(t, uint16(80), m.Port)
	}
	_, body = ask(t, d, "NetworkDriver.ProgramExternalConnectivity", program)
	require.Equal(t, ok, body)
	assert.ElementsMatch(t, first, ports(t, h), "it keeps the ports that it has")
}

func ports(t *testing.T, h *host) []vnic.PortMapping {
	t.Helper()
	list, err := h.Attachments(t.Context(), "docker")
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0].Request.Ports
}

// TestReleasedLate: an address that dockerd gives back after it was reserved for
// another container stays reserved for that one.
func TestReleasedLate(t *testing.T) {
	d, h, _ := newDriver(t, docker.Config{})
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	const address = `{"PoolID":"blue/v4","Address":"10.1.0.9"}`
	request := func() {
		_, body := ask(t, d, "IpamDriver.RequestAddress", address)
		require.JSONEq(t, `{"Address":"10.1.0.9/24"}`, body)
	}
	request()
	_, body = ask(t, d, "NetworkDriver.CreateEndpoint", `{"NetworkID":"web","EndpointID":"first","Interface":{"Address":"10.1.0.9/24"}}`)
	require.NotContains(t, body, "Err")
	_, body = ask(t, d, "NetworkDriver.DeleteEndpoint", endpointBody("first"))
	require.Equal(t, ok, body)
	request() // for the second
	_, body = ask(t, d, "IpamDriver.RequestAddress", address)
	require.Contains(t, body, "address taken")
	_, body = ask(t, d, "IpamDriver.ReleaseAddress", address)
	require.Equal(t, ok, body, "by the first")
	assert.Equal(t, "host: reserved blue 10.1.0.9\n", h.text())
	_, body = ask(t, d, "IpamDriver.ReleaseAddress", address)
	require.Equal(t, ok, body)
	assert.Empty(t, h.text())
}

// TestDiskFull: what can't be remembered is not promised.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	d, h, _ := newDriver(t, docker.Config{StateDir: dir})
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	file := filepath.Join(dir, "docker.json.new")
	require.NoError(t, os.Mkdir(file, 0o700)) // in the way
	_, body = ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("ep"))
	assert.Contains(t, body, `"Err":"create endpoint ep: write state: `)
	_, body = ask(t, d, "NetworkDriver.DeleteEndpoint", endpointBody("ep"))
	assert.Equal(t, ok, body)
	assert.Empty(t, h.text())
}

// TestLeaveAnswersFromMemory: nothing is asked of the host.
func TestLeaveAnswersFromMemory(t *testing.T) {
	d, h, _ := newDriver(t, docker.Config{})
	_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
	require.Equal(t, ok, body)
	_, body = ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("ep"))
	require.NotContains(t, body, "Err")
	before := len(h.Calls())
	for _, method := range []string{"Join", "ProgramExternalConnectivity", "EndpointOperInfo", "RevokeExternalConnectivity", "Leave"} {
		_, body := ask(t, d, "NetworkDriver."+method, endpointBody("ep"))
		assert.NotContains(t, body, "Err", method)
	}
	assert.Empty(t, h.Calls()[before:])
}

func TestBackAndForth(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, h, g := newDriver(t, docker.Config{StateDir: dir})
		ctx, cancel := context.WithCancel(t.Context())
		p := newPipes()
		served := make(chan error)
		go func() { served <- docker.ServeOn(ctx, d, p) }()
		g.onBack = d.HandedBack
		_, body := ask(t, d, "NetworkDriver.CreateNetwork", createWeb)
		require.Equal(t, ok, body)
		_, body = ask(t, d, "NetworkDriver.CreateEndpoint", endpointBody("ep"))
		require.NotContains(t, body, "Err")

		// dockerd leaves and joins again, as it does for live updates of a sandbox.
		for range 3 {
			_, body = ask(t, d, "NetworkDriver.Join", endpointBody("ep"))
			require.NotContains(t, body, "Err")
			require.NoError(t, g.move("brf00000000a1", "", "c1", "eth0"))
			<-time.After(time.Hour)
			_, body = ask(t, d, "NetworkDriver.Leave", endpointBody("ep"))
			require.Equal(t, ok, body)
			require.NoError(t, g.move("eth0", "c1", "", "brf00000000a1"))
			<-time.After(time.Minute)
		}
		assert.NotEmpty(t, h.text())

		// It comes back and is taken again before the grace is over.
		_, body = ask(t, d, "NetworkDriver.Join", endpointBody("ep"))
		require.NotContains(t, body, "Err")
		require.NoError(t, g.move("brf00000000a1", "", "c1", "eth0"))
		<-time.After(time.Second)
		require.NoError(t, g.move("eth0", "c1", "", "brf00000000a1"))
		<-time.After(9 * time.Second)
		require.NoError(t, g.move("brf00000000a1", "", "c1", "eth0"))
		<-time.After(time.Hour)
		assert.NotEmpty(t, h.text())
		g.die("c1")
		<-time.After(11 * time.Second)
		assert.Empty(t, h.text()+g.String())
		cancel()
		assert.ErrorIs(t, <-served, context.Canceled)
	})
}

// TestUnknownAttachment: one that the host has and the driver doesn't know of, since
// the agent died before it could write it down.
func TestUnknownAttachment(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, h, _ := newDriver(t, docker.Config{StateDir: dir})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- docker.ServeOn(ctx, d, newPipes()) }()
		synctest.Wait()
		for pod, manager := range map[string]string{"lost": "docker", "other": "cni"} {
			_, err := h.Attach(ctx, vnic.Request{Key: vnic.Key{Pod: pod, Interface: "eth0"}, Network: "blue", Manager: manager})
			require.NoError(t, err)
		}
		h.Fail("Detach", vnic.ErrAgentUnavailable, 1)
		h.SetAway(false) // a session begins
		synctest.Wait()
		assert.Contains(t, h.text(), "lost")
		<-time.After(31 * time.Second)
		assert.Equal(t, "other/eth0 blue [10.1.0.2/24] manager cni", strings.Replace(h.String(), "10.1.0.3", "10.1.0.2", 1))
		cancel()
		assert.ErrorIs(t, <-served, context.Canceled)
	})
}
