package daemon

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

// forwarding is a server that forwards what is another hypervisor's. Deadline, cancel
// and errors pass through. What it doesn't name is served here: AddVM, since a VM is of
// the hypervisor that is told of it; networks and services, which all share; and Watch,
// ListVMs, ListPools, GC and Doctor, which are about this one alone.
type forwarding struct {
	*server

	peers *peers
}

// ofVM returns the daemon of the hypervisor that has a VM. It is nil when that is this
// one, nobody, or the call was forwarded.
func (f *forwarding) ofVM(ctx context.Context, vm string) (*peer, error) {
	if vm == "" || isForwarded(ctx) {
		return nil, nil
	}
	return f.peer(f.dir.HypervisorOf(ctx, vm))
}

// ofAttachment is ofVM by an attachment.
func (f *forwarding) ofAttachment(ctx context.Context, s string) (*peer, error) {
	id, err := vnic.ParseID(s)
	if err != nil || isForwarded(ctx) {
		return nil, nil // the server refuses it
	}
	return f.peer(f.dir.HypervisorOfAttachment(ctx, id))
}

func (f *forwarding) peer(h vnic.Hypervisor, err error) (*peer, error) {
	switch {
	case errors.Is(err, vnic.ErrUnknownVM), errors.Is(err, vnic.ErrNotFound):
		return nil, nil // the server says so
	case err != nil:
		return nil, err
	case h.Name == f.dir.Hypervisor():
		return nil, nil
	}
	return f.peers.get(h)
}

// forward calls a peer, or the server when there is none.
func forward[Q, A any](ctx context.Context, p *peer, req *Q, here func(context.Context, *Q) (*A, error),
	there func(brfusev1.BrfuseClient, context.Context, *Q, ...grpc.CallOption) (*A, error),
) (*A, error) {
	if p == nil {
		return here(ctx, req)
	}
	res, err := there(p, p.mark(ctx), req)
	if err != nil {
		return nil, p.failure(ctx, err)
	}
	return res, nil
}

// RemoveVM implements the call of that name.
func (f *forwarding) RemoveVM(ctx context.Context, req *brfusev1.RemoveVMRequest) (*brfusev1.RemoveVMResponse, error) {
	p, err := f.ofVM(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.RemoveVM, brfusev1.BrfuseClient.RemoveVM)
}

// MigrateVM implements the call of that name.
func (f *forwarding) MigrateVM(ctx context.Context, req *brfusev1.MigrateVMRequest) (*brfusev1.VM, error) {
	p, err := f.ofVM(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.MigrateVM, brfusev1.BrfuseClient.MigrateVM)
}

// Attach implements the call of that name.
func (f *forwarding) Attach(ctx context.Context, req *brfusev1.AttachRequest) (*brfusev1.Attachment, error) {
	p, err := f.ofVM(ctx, req.GetVm())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.Attach, brfusev1.BrfuseClient.Attach)
}

// Detach implements the call of that name.
func (f *forwarding) Detach(ctx context.Context, req *brfusev1.DetachRequest) (*brfusev1.DetachResponse, error) {
	var p *peer
	var err error
	switch {
	case req.GetId() != "":
		p, err = f.ofAttachment(ctx, req.GetId())
	case req.GetVm() != "":
		p, err = f.ofVM(ctx, req.GetVm())
	default:
		p, err = f.ofPod(ctx, req.GetPod())
	}
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.Detach, brfusev1.BrfuseClient.Detach)
}

// Get implements the call of that name.
func (f *forwarding) Get(ctx context.Context, req *brfusev1.GetRequest) (*brfusev1.Attachment, error) {
	p, err := f.ofAttachment(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.Get, brfusev1.BrfuseClient.Get)
}

// SetPool implements the call of that name.
func (f *forwarding) SetPool(ctx context.Context, req *brfusev1.SetPoolRequest) (*brfusev1.Pool, error) {
	p, err := f.ofVM(ctx, req.GetVm())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.SetPool, brfusev1.BrfuseClient.SetPool)
}

// RemovePool implements the call of that name.
func (f *forwarding) RemovePool(ctx context.Context, req *brfusev1.RemovePoolRequest) (*brfusev1.RemovePoolResponse, error) {
	p, err := f.ofVM(ctx, req.GetVm())
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.RemovePool, brfusev1.BrfuseClient.RemovePool)
}

// Path implements the call of that name.
func (f *forwarding) Path(ctx context.Context, req *brfusev1.PathRequest) (*brfusev1.PathResponse, error) {
	p, err := f.ofVM(ctx, req.GetVm())
	if req.GetVm() == "" {
		p, err = f.ofPod(ctx, req.GetPod())
	}
	if err != nil {
		return nil, err
	}
	return forward(ctx, p, req, f.server.Path, brfusev1.BrfuseClient.Path)
}

// Bench implements the call of that name. Both VMs are of one hypervisor.
func (f *forwarding) Bench(req *brfusev1.BenchRequest, stream grpc.ServerStreamingServer[brfusev1.BenchEvent]) error {
	ctx := stream.Context()
	p, err := f.ofVM(ctx, req.GetVm())
	if err != nil {
		return err
	}
	if p == nil {
		return f.server.Bench(req, stream)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the peer's, also when the client is gone
	events, err := p.Bench(p.mark(ctx), req)
	if err != nil {
		return p.failure(ctx, err)
	}
	for {
		ev, err := events.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return p.failure(ctx, err)
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}
