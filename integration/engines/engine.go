package engines

import (
	"context"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// Guest is a guest with engines on its disk. Its methods are safe for concurrent
// use as those of [vmlab.VM] are.
type Guest struct{ *vmlab.VM }

// Sockets of the engines in a guest.
const (
	DockerSocket     = "/run/docker.sock"
	ContainerdSocket = "/run/containerd/containerd.sock"
)

// startLimit is how long an engine has until its socket is there; emulated, it
// takes up to ten seconds.
const startLimit = 90 * time.Second

// StartDocker starts dockerd and returns when it answers.
func (g Guest) StartDocker(ctx context.Context, args ...string) (*vmlab.GuestProcess, error) {
	p, err := g.daemon(ctx, DockerSocket, append([]string{"dockerd"}, args...)...)
	if err != nil {
		return nil, err
	}
	return p, g.Do(ctx, "docker", "version")
}

// StartContainerd starts containerd and returns when it answers.
func (g Guest) StartContainerd(ctx context.Context) (*vmlab.GuestProcess, error) {
	p, err := g.daemon(ctx, ContainerdSocket, "containerd")
	if err != nil {
		return nil, err
	}
	return p, g.Do(ctx, "ctr", "version")
}

// daemon starts a program and awaits its socket. One that a killed program left
// is removed first.
func (g Guest) daemon(ctx context.Context, socket string, argv ...string) (*vmlab.GuestProcess, error) {
	if err := g.Do(ctx, "rm", "-f", socket); err != nil {
		return nil, err
	}
	p, err := g.Start(ctx, vmlab.Command{Argv: argv})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	// The guest looks, and not we, who would keep its one CPU busy.
	res, err := g.Shell(ctx, fmt.Sprintf("until test -S %s; do kill -0 %d || exit 1; usleep 20000; done", socket, p.PID))
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		log, _ := g.Get(context.WithoutCancel(ctx), "/run/log/"+argv[0]+".log")
		return nil, fmt.Errorf("await %s's socket: %w: %s", argv[0], err, tail(log, 3000))
	}
	return p, nil
}

func tail(b []byte, n int) string { return string(b[max(0, len(b)-n):]) }

// Do runs a command in the guest, which has to succeed.
func (g Guest) Do(ctx context.Context, argv ...string) error {
	_, err := g.Output(ctx, argv...)
	return err
}

// LoadDocker makes the container images known to Docker.
func (g Guest) LoadDocker(ctx context.Context) error {
	return g.Do(ctx, "docker", "load", "-q", "-i", archivePath)
}

// LoadContainerd makes the container images known to containerd, in a namespace
// such as "default", or "k8s.io", which is that of CRI.
func (g Guest) LoadContainerd(ctx context.Context, namespace string) error {
	return g.Do(ctx, "ctr", "-n", namespace, "image", "import", archivePath)
}

// LoadPodman makes the container images known to podman.
func (g Guest) LoadPodman(ctx context.Context) error {
	return g.Do(ctx, "podman", "load", "-q", "-i", archivePath)
}
