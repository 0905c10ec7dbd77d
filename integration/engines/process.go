package engines

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killLimit is how long a killed process has until it is gone.
const killLimit = 30 * time.Second

// Kill kills a process of the guest as kill -9 does, whoever started it, and
// waits until it is gone.
func (g Guest) Kill(ctx context.Context, pid int) error {
	if err := g.Signal(ctx, pid, syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	res, err := g.Shell(ctx, fmt.Sprintf("while test -d /proc/%d; do usleep 20000; done", pid))
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return fmt.Errorf("await end of pid %d: %w", pid, err)
	}
	return nil
}

// Shim returns the pid of containerd's shim of a container of docker or ctr, or
// of a sandbox of CRI, by its whole id. It has one process for all in a sandbox.
func (g Guest) Shim(ctx context.Context, id string) (int, error) {
	// The end of the pattern keeps one id from being the beginning of another.
	out, err := g.Output(ctx, "pgrep", "-f", "^[^ ]*containerd-shim-runc-v2 .*-id "+id+"( |$)")
	if err != nil {
		return 0, fmt.Errorf("find shim of %s: %w", id, err)
	}
	return onePID("shim of "+id, out)
}

// onePID decodes a program's output that is to be one pid.
func onePID(what, out string) (int, error) {
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("find %s: want one pid, have %q", what, out)
	}
	return pid, nil
}

// DockerPID returns the pid of the first process of a running container. Its
// network namespace is the container's: see [vmlab.VM.RunIn].
func (g Guest) DockerPID(ctx context.Context, container string) (int, error) {
	return g.inspectPID(ctx, "docker", "inspect", "-f", "{{.State.Pid}}", container)
}

// PodmanPID is [Guest.DockerPID] for podman.
func (g Guest) PodmanPID(ctx context.Context, container string) (int, error) {
	return g.inspectPID(ctx, "podman", "inspect", "-f", "{{.State.Pid}}", container)
}

// TaskPID is [Guest.DockerPID] for a container of containerd in a namespace:
// "default" for ctr, "k8s.io" for CRI, where a sandbox is one too.
func (g Guest) TaskPID(ctx context.Context, namespace, id string) (int, error) {
	return g.inspectPID(ctx, "cat", "/run/containerd/io.containerd.runtime.v2.task/"+namespace+"/"+id+"/init.pid")
}

func (g Guest) inspectPID(ctx context.Context, argv ...string) (int, error) {
	out, err := g.Output(ctx, argv...)
	if err != nil {
		return 0, err
	}
	return onePID(argv[len(argv)-1], out)
}
