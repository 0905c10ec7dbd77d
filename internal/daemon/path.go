package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// Walker finds the paths of packets. It is safe for concurrent use.
type Walker interface {
	// GuestPath walks in a VM, from an interface of a pod.
	GuestPath(ctx context.Context, q PathQuery) (*netpath.Path, error)
	// HostPath walks on this host, from the tap of an attachment, or, when that is
	// the zero value, from that of the VM's own NIC by which the guest's path ends.
	HostPath(ctx context.Context, q PathQuery, a vnic.Attachment, guest *netpath.Path) (*netpath.Path, error)
}

// PathQuery says whose path is asked for.
type PathQuery struct {
	VM, Netns, Interface string
	// MAC finds the interface when Netns is empty: the pod of a container engine.
	MAC vnic.MAC
	To  netip.Addr // invalid: where default routes lead to
}

// Path implements the call of that name.
func (s *server) Path(ctx context.Context, req *brfusev1.PathRequest) (*brfusev1.PathResponse, error) {
	w, ok := s.vms.(Walker)
	if !ok {
		return nil, fmt.Errorf("find path: %w", vnic.ErrUnsupported)
	}
	q, a, notes, err := s.pathQuery(ctx, req)
	if err != nil {
		return nil, err
	}
	r := netpath.Report{
		VM: q.VM, Pod: netpath.Printable(req.GetPod()), Interface: q.Interface, Fused: a.ID != "", Attachment: string(a.ID), Notes: notes,
	}
	if r.Guest, err = w.GuestPath(ctx, q); err != nil {
		if !r.Fused || errors.Is(err, context.Canceled) {
			return nil, err
		}
		r.Notes = append(r.Notes, "the guest's side is not known: "+err.Error())
	}
	if r.Host, err = w.HostPath(ctx, q, a, r.Guest); err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, err
		}
		r.Notes = append(r.Notes, "the host's side is not known: "+err.Error())
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode path: %w", err)
	}
	return &brfusev1.PathResponse{Report: string(b)}, nil
}

// pathQuery finds which interface is meant. The attachment is the zero value when
// brfuse didn't attach it.
func (s *server) pathQuery(ctx context.Context, req *brfusev1.PathRequest) (q PathQuery, a vnic.Attachment, notes []string, err error) {
	q = PathQuery{VM: req.GetVm(), Netns: req.GetPod(), Interface: req.GetInterface()}
	if to := req.GetTo(); to != "" {
		if q.To, err = netip.ParseAddr(to); err != nil || q.To.Zone() != "" {
			return q, a, nil, fmt.Errorf("destination %q: give a plain IPv4 or IPv6 address: %w", to, vnic.ErrInvalid)
		}
	}
	if q.Netns == "" {
		return q, a, nil, fmt.Errorf("no pod is named: %w", vnic.ErrInvalid)
	}
	pod := req.GetPod()
	if runtime := req.GetRuntime(); runtime != "" {
		if err := checkContainer(q.VM, runtime, pod); err != nil {
			return q, a, nil, err
		}
		c, err := s.vms.Resolve(ctx, q.VM, runtime, pod)
		if err != nil {
			return q, a, nil, fmt.Errorf("find container %s of %s in %s: %w", pod, runtime, q.VM, err)
		}
		pod, q.Netns = c.Pod, c.Netns
	}
	found, err := s.attachmentsOf(ctx, q.VM, pod)
	if err != nil {
		return q, a, nil, err
	}
	q, a, notes = pathOf(q, found)
	return q, a, notes, nil
}

// attachmentsOf returns the attachments of a pod, of one VM.
func (s *server) attachmentsOf(ctx context.Context, vm, pod string) ([]vnic.Attachment, error) {
	list, err := s.orch.List(ctx, orchestrator.Filter{VM: vm, Pod: pod})
	if err != nil {
		return nil, err
	}
	if err := oneVM(pod, list); err != nil {
		return nil, err
	}
	if len(list) == 0 && vm == "" {
		return nil, fmt.Errorf("pod %s has no attachment: name the vm that it is in by --vm, or see `brfuse list`: %w", netpath.Printable(pod), vnic.ErrNotFound)
	}
	return list, nil
}

// oneVM refuses attachments in several VMs.
func oneVM(pod string, list []vnic.Attachment) error {
	for _, a := range list {
		if a.Request.VM != list[0].Request.VM {
			return fmt.Errorf("pod %s is in vms %s and %s, name one by --vm: %w", pod, list[0].Request.VM, a.Request.VM, vnic.ErrInvalid)
		}
	}
	return nil
}

// pathOf chooses an attachment, or none for an interface that brfuse didn't attach.
func pathOf(q PathQuery, found []vnic.Attachment) (_ PathQuery, a vnic.Attachment, notes []string) {
	want := cmp.Or(q.Interface, "eth0")
	i := slices.IndexFunc(found, func(a vnic.Attachment) bool { return a.Request.Interface == want })
	if i < 0 && q.Interface == "" && len(found) > 0 {
		i = 0
	}
	if i < 0 {
		q.Interface = want
		if len(found) > 0 {
			q.VM, q.Netns = found[0].Request.VM, cmp.Or(found[0].Request.Netns, q.Netns)
		}
		return q, a, nil
	}
	a = found[i]
	q.VM, q.Netns, q.Interface, q.MAC = a.Request.VM, a.Request.Netns, a.Request.Interface, a.MAC
	var others []string
	for _, o := range found {
		if o.ID != a.ID {
			others = append(others, o.Request.Interface)
		}
	}
	if len(others) > 0 {
		notes = append(notes, "the pod has other interfaces, see --ifname: "+strings.Join(others, ", "))
	}
	if a.Phase != vnic.PhaseReady {
		notes = append(notes, "the attachment is "+string(a.Phase))
	}
	return q, a, notes
}
