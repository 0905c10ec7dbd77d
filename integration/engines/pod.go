package engines

import (
	"context"
	"fmt"
	"strings"
)

// Pod is a sandbox of CRI.
type Pod struct{ ID, IP string }

// RunPod runs a sandbox as the kubelet does; see the command crictl for what
// spec is.
func (g Guest) RunPod(ctx context.Context, spec string) (Pod, error) {
	out, err := g.Output(ctx, "crictl", "run-pod", spec)
	if err != nil {
		return Pod{}, err
	}
	id, ip, ok := strings.Cut(out, " ")
	if !ok {
		return Pod{}, fmt.Errorf("crictl run-pod printed %q", out)
	}
	return Pod{id, ip}, nil
}

// RunInPod creates and starts a container in a sandbox and returns its id.
func (g Guest) RunInPod(ctx context.Context, pod, spec string) (string, error) {
	return g.Output(ctx, "crictl", "run", pod, spec)
}

// RemoveSandbox stops and removes a sandbox with all of its containers.
func (g Guest) RemoveSandbox(ctx context.Context, pod string) error {
	if err := g.Do(ctx, "crictl", "stop-pod", pod); err != nil {
		return err
	}
	return g.Do(ctx, "crictl", "rm-pod", pod)
}
