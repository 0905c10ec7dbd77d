package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// Labels of an attachment that was made for a container on the hypervisor. Other
// containers may share its pod.
const (
	labelID      = "container.id"
	labelName    = "container.name"
	labelRuntime = "container.runtime"
)

// runtimes are the engines whose containers an agent finds.
var runtimes = []string{"docker", "containerd", "podman"}

func checkContainer(vm, runtime, container string) error {
	switch {
	case container == "":
		return fmt.Errorf("runtime %s without a container: %w", runtime, vnic.ErrInvalid)
	case !slices.Contains(runtimes, runtime):
		return fmt.Errorf("runtime %q of container %s is none of %s: %w", runtime, container, strings.Join(runtimes, ", "), vnic.ErrInvalid)
	}
	return vnic.CheckVMName(vm)
}

// forContainer completes a request by the pod of a container that runs.
func (s *server) forContainer(ctx context.Context, r vnic.Request, runtime, container string) (vnic.Request, error) {
	if err := checkContainer(r.VM, runtime, container); err != nil {
		return r, err
	}
	if r.Pod != "" || r.Netns != "" {
		return r, fmt.Errorf("container %s and a pod or netns: give one or the other: %w", container, vnic.ErrInvalid)
	}
	c, err := s.vms.Resolve(ctx, r.VM, runtime, container)
	if err != nil {
		return r, fmt.Errorf("find container %s of %s in %s: %w", container, runtime, r.VM, err)
	}
	r.Pod, r.Netns = c.Pod, c.Netns
	r.Labels = map[string]string{labelID: c.ID, labelRuntime: runtime}
	if c.Name != "" {
		r.Labels[labelName] = c.Name
	}
	return r, nil
}

// attachAgain attaches for a container that knows its pod's namespace by another
// path than the one that was attached first. It returns why when that is not so.
func (s *server) attachAgain(ctx context.Context, r vnic.Request, why error) (vnic.Attachment, error) {
	old, err := s.orch.Find(ctx, r.Key)
	if err != nil || old.Request.Netns == r.Netns {
		return old, why
	}
	err = s.vms.Check(ctx, r.VM, vnic.Move{
		ID: old.ID, MAC: old.MAC, Netns: r.Netns, Interface: r.Interface, MTU: old.MTU, Queues: old.Request.Queues, Addresses: old.Leases,
	})
	if err != nil {
		return old, fmt.Errorf("%w; nor is it there: %w", why, err)
	}
	r.Netns = old.Request.Netns
	return s.orch.Attach(ctx, r)
}

// toDetachContainer finds what was attached for a container, or for another of its
// pod. One that does not run any more is known by the labels.
func (s *server) toDetachContainer(ctx context.Context, req *brfusev1.DetachRequest) ([]vnic.ID, error) {
	vm, runtime, container := req.GetVm(), req.GetRuntime(), req.GetContainer()
	if err := checkContainer(vm, runtime, container); err != nil {
		return nil, err
	}
	if req.GetPod() != "" {
		return nil, fmt.Errorf("container %s and pod %s: give one or the other: %w", container, req.GetPod(), vnic.ErrInvalid)
	}
	var match func(vnic.Attachment) bool
	c, err := s.vms.Resolve(ctx, vm, runtime, container)
	switch {
	case err == nil:
		match = func(a vnic.Attachment) bool { return a.Request.Pod == c.Pod }
	case errors.Is(err, vnic.ErrUnknownContainer), errors.Is(err, vnic.ErrUnknownPod), errors.Is(err, vnic.ErrAgentUnavailable):
		match = func(a vnic.Attachment) bool { return named(a.Request.Labels, container) }
	default:
		return nil, fmt.Errorf("find container %s of %s in %s: %w", container, runtime, vm, err)
	}
	list, err := s.orch.List(ctx, orchestrator.Filter{VM: vm})
	if err != nil {
		return nil, err
	}
	var ids []vnic.ID
	pod := ""
	for _, a := range list {
		if a.Request.Manager != "" || a.Request.Labels[labelRuntime] != runtime || !match(a) ||
			req.GetInterface() != "" && req.GetInterface() != a.Request.Interface {
			continue
		}
		if pod != "" && pod != a.Request.Pod {
			return nil, fmt.Errorf("container %s may be in pod %s or %s; give more of its ID: %w", container, pod, a.Request.Pod, vnic.ErrInvalid)
		}
		pod = a.Request.Pod
		ids = append(ids, a.ID)
	}
	return ids, nil
}

// named says whether an attachment's labels are those of a container of that name,
// or with an ID that begins so.
func named(labels map[string]string, container string) bool {
	return labels[labelName] == container || strings.HasPrefix(labels[labelID], container)
}
