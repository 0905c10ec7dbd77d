package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/netbench"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// server serves the public API.
type server struct {
	brfusev1.UnimplementedBrfuseServer
	orch  *orchestrator.Orchestrator
	vms   Prober
	bench *netbench.Bench // nil: VMs can't be measured
	dir   Directory       // nil: there are no other hypervisors
}

// Prober tells of the state of things outside of the store. One that is a
// [netbench.Guests] too lets VMs be measured. It is safe for concurrent use.
type Prober interface {
	// VMState tells what both halves know of a VM. What can't be learned stays empty.
	VMState(ctx context.Context, vm vnic.VM) *brfusev1.VM
	// Channel returns the path of the agent's channel of a libvirt domain.
	Channel(ctx context.Context, domain string) (string, error)
	// Doctor checks the host and every VM.
	Doctor(ctx context.Context) []*brfusev1.Check
	// Resolve finds a running container of an engine in a VM, by its ID or name.
	Resolve(ctx context.Context, vm, runtime, container string) (vnic.Container, error)
	// Check compares a vNIC in a pod with its order: [vnic.ErrDiffers].
	Check(ctx context.Context, vm string, m vnic.Move) error
}

func (s *server) AddVM(ctx context.Context, req *brfusev1.AddVMRequest) (*brfusev1.VM, error) {
	vm := vnic.VM{Name: req.GetName(), QMP: req.GetQmp(), Libvirt: req.GetLibvirt(), Channel: req.GetChannel(), GuestNetworks: req.GetGuestNetworks()}
	if vm.Libvirt != "" && vm.Channel == "" {
		channel, err := s.vms.Channel(ctx, vm.Libvirt)
		if err != nil {
			return nil, fmt.Errorf("add vm %s: %w", vm.Name, err)
		}
		vm.Channel = channel
	}
	if err := s.orch.AddVM(ctx, vm); err != nil {
		return nil, err
	}
	vm, err := s.orch.VM(ctx, vm.Name) // with the networks that it had
	if err != nil {
		return nil, err
	}
	return s.vm(ctx, vm)
}

func (s *server) vm(ctx context.Context, vm vnic.VM) (*brfusev1.VM, error) {
	m := s.vms.VMState(ctx, vm)
	m.GuestNetworks = vm.GuestNetworks
	list, err := s.orch.List(ctx, orchestrator.Filter{VM: vm.Name})
	if err != nil {
		return nil, err
	}
	m.Attachments = clampUint32(len(list))
	return m, nil
}

func (s *server) ListVMs(ctx context.Context, _ *brfusev1.ListVMsRequest) (*brfusev1.ListVMsResponse, error) {
	vms, err := s.orch.VMs(ctx)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListVMsResponse{}
	attachments := map[string]int{}
	list, err := s.orch.List(ctx, orchestrator.Filter{})
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		attachments[a.Request.VM]++
	}
	for i, m := range states(ctx, s.vms, vms) {
		m.GuestNetworks = vms[i].GuestNetworks
		m.Attachments = clampUint32(attachments[m.GetName()])
		res.Vms = append(res.Vms, m)
	}
	return res, nil
}

// maxProbes bounds how many VMs are asked at once.
const maxProbes = 32

// states asks for the states of VMs, many at once: each that is silent costs
// seconds.
func states(ctx context.Context, p Prober, vms []vnic.VM) []*brfusev1.VM {
	list := make([]*brfusev1.VM, len(vms))
	room := make(chan struct{}, maxProbes)
	var wg sync.WaitGroup
	for i, vm := range vms {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			list[i] = p.VMState(ctx, vm)
		})
	}
	wg.Wait()
	return list
}

func (s *server) RemoveVM(ctx context.Context, req *brfusev1.RemoveVMRequest) (*brfusev1.RemoveVMResponse, error) {
	return &brfusev1.RemoveVMResponse{}, s.orch.RemoveVM(ctx, req.GetName(), req.GetForce())
}

func (s *server) CreateNetwork(ctx context.Context, req *brfusev1.CreateNetworkRequest) (*brfusev1.Network, error) {
	n, err := networkFromProto(req.GetNetwork())
	if err != nil {
		return nil, err
	}
	if n, err = s.orch.CreateNetwork(ctx, n); err != nil {
		return nil, err
	}
	return s.network(ctx, n)
}

func (s *server) network(ctx context.Context, n vnic.Network) (*brfusev1.Network, error) {
	list, err := s.orch.List(ctx, orchestrator.Filter{Network: n.Name})
	if err != nil {
		return nil, err
	}
	m := networkToProto(n)
	m.Attachments = clampUint32(len(list))
	return m, nil
}

func (s *server) ListNetworks(ctx context.Context, _ *brfusev1.ListNetworksRequest) (*brfusev1.ListNetworksResponse, error) {
	nets, err := s.orch.Networks(ctx)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListNetworksResponse{}
	for _, n := range nets {
		m, err := s.network(ctx, n)
		if err != nil {
			return nil, err
		}
		res.Networks = append(res.Networks, m)
	}
	return res, nil
}

func (s *server) RemoveNetwork(ctx context.Context, req *brfusev1.RemoveNetworkRequest) (*brfusev1.RemoveNetworkResponse, error) {
	return &brfusev1.RemoveNetworkResponse{}, s.orch.RemoveNetwork(ctx, req.GetName())
}

func (s *server) Attach(ctx context.Context, req *brfusev1.AttachRequest) (*brfusev1.Attachment, error) {
	r, err := requestFromProto(req)
	if err != nil {
		return nil, err
	}
	if req.GetContainer() != "" || req.GetRuntime() != "" {
		if r, err = s.forContainer(ctx, r, req.GetRuntime(), req.GetContainer()); err != nil {
			return nil, err
		}
	}
	if r.Network == "" {
		if r.Network, err = s.onlyNetwork(ctx); err != nil {
			return nil, err
		}
	}
	a, err := s.orch.Attach(ctx, r)
	if req.GetContainer() != "" && errors.Is(err, vnic.ErrConflict) {
		a, err = s.attachAgain(ctx, r, err)
	}
	if err != nil {
		return nil, err
	}
	return attachmentToProto(a), nil
}

// onlyNetwork returns the name of the network when there is just one.
func (s *server) onlyNetwork(ctx context.Context) (string, error) {
	nets, err := s.orch.Networks(ctx)
	if err != nil {
		return "", err
	}
	switch len(nets) {
	case 0:
		return "", fmt.Errorf("%w: there is none; create one by `brfuse network create`", vnic.ErrUnknownNetwork)
	case 1:
		return nets[0].Name, nil
	}
	return "", fmt.Errorf("%w: there are %d; name one", vnic.ErrUnknownNetwork, len(nets))
}

func (s *server) Detach(ctx context.Context, req *brfusev1.DetachRequest) (*brfusev1.DetachResponse, error) {
	ids, err := s.toDetach(ctx, req)
	if err != nil {
		return nil, err
	}
	// All at once: one that fails, or takes long, doesn't keep the others from it.
	res := &brfusev1.DetachResponse{Detached: make([]*brfusev1.Attachment, len(ids))}
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			a, err := s.orch.Detach(ctx, id)
			res.Detached[i], errs[i] = attachmentToProto(a), err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return res, nil
}

// toDetach finds the attachments that a request means. None is no error.
func (s *server) toDetach(ctx context.Context, req *brfusev1.DetachRequest) ([]vnic.ID, error) {
	if req.GetId() != "" {
		id, err := vnic.ParseID(req.GetId())
		if err != nil {
			return nil, err
		}
		list, err := s.orch.List(ctx, orchestrator.Filter{})
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			if a.ID == id {
				return []vnic.ID{id}, nil
			}
		}
		return nil, nil
	}
	if req.GetContainer() != "" || req.GetRuntime() != "" {
		return s.toDetachContainer(ctx, req)
	}
	if err := vnic.CheckPodName(req.GetPod()); err != nil {
		return nil, err
	}
	list, err := s.orch.List(ctx, orchestrator.Filter{VM: req.GetVm(), Pod: req.GetPod()})
	if err != nil {
		return nil, err
	}
	var ids []vnic.ID
	vm := ""
	for _, a := range list {
		if req.GetInterface() != "" && req.GetInterface() != a.Request.Interface {
			continue
		}
		if vm != "" && vm != a.Request.VM {
			return nil, fmt.Errorf("pod %s is in vms %s and %s, name one by --vm: %w", req.GetPod(), vm, a.Request.VM, vnic.ErrInvalid)
		}
		vm = a.Request.VM
		ids = append(ids, a.ID)
	}
	return ids, nil
}

func (s *server) Get(ctx context.Context, req *brfusev1.GetRequest) (*brfusev1.Attachment, error) {
	id, err := vnic.ParseID(req.GetId())
	if err != nil {
		return nil, err
	}
	a, err := s.orch.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return attachmentToProto(a), nil
}

func (s *server) List(ctx context.Context, req *brfusev1.ListRequest) (*brfusev1.ListResponse, error) {
	filter := orchestrator.Filter{VM: req.GetVm(), Pod: req.GetPod(), Network: req.GetNetwork()}
	if req.GetAll() {
		return s.listAll(ctx, filter)
	}
	list, err := s.orch.List(ctx, filter)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListResponse{}
	for _, a := range list {
		res.Attachments = append(res.Attachments, attachmentToProto(a))
	}
	return res, nil
}

func (s *server) Watch(_ *brfusev1.WatchRequest, stream grpc.ServerStreamingServer[brfusev1.WatchEvent]) error {
	for a, err := range s.orch.Watch(stream.Context()) {
		if err != nil {
			return err
		}
		if err := stream.Send(&brfusev1.WatchEvent{Attachment: attachmentToProto(a)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) GC(ctx context.Context, req *brfusev1.GCRequest) (*brfusev1.GCResponse, error) {
	findings, err := s.orch.GC(ctx, req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &brfusev1.GCResponse{Findings: findings, Removed: !req.GetDryRun()}, nil
}

func (s *server) Doctor(ctx context.Context, _ *brfusev1.DoctorRequest) (*brfusev1.DoctorResponse, error) {
	return &brfusev1.DoctorResponse{Checks: s.vms.Doctor(ctx)}, nil
}

// intercept logs a call and gives its error a code.
func intercept(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		res, err := handler(ctx, req)
		attrs := []slog.Attr{slog.String("method", info.FullMethod), slog.Duration("took", time.Since(start))}
		if a, ok := res.(*brfusev1.Attachment); ok && err == nil {
			attrs = append(attrs, slog.String("attachment", a.GetId()))
		}
		level := slog.LevelDebug
		if err != nil {
			attrs = append(attrs, slog.Any("error", err))
			level = slog.LevelInfo
		}
		log.LogAttrs(ctx, level, "call", attrs...)
		return res, encode(err)
	}
}

// interceptStream gives a stream's error a code, and ends the stream with life.
func interceptStream(life context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		err := handler(srv, &stream{ss, ctx})
		if err != nil && life.Err() != nil {
			return status.Error(codes.Unavailable, "brfused is stopping")
		}
		return encode(err)
	}
}

// stream is a stream with another context.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as ServerStream has one
}

// Context implements [grpc.ServerStream].
func (s *stream) Context() context.Context { return s.ctx }

// encode gives an error its code. Errors of gRPC's own have one already.
func encode(err error) error {
	if vnic.CodeOf(err) != "" {
		return rpcerr.Encode(err)
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown {
		return err
	}
	return rpcerr.Encode(err)
}
