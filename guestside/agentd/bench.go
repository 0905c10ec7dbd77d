package agentd

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/bench"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// Bench makes places in the guest to measure in. *bench.Bench is one.
type Bench interface {
	Open(ctx context.Context, o bench.Order) (bench.Place, error)
	Serve(ctx context.Context, id string) (port uint16, err error)
	Reach(ctx context.Context, id string, to []netip.AddrPort) ([]netip.AddrPort, error)
	Run(ctx context.Context, id string, to netip.AddrPort, spec netload.Spec) (bench.Result, error)
	Close(ctx context.Context, id string) error
	// CloseAll is called when a session with the daemon has ended.
	CloseAll(ctx context.Context) error
}

// errNoBench says why an agent without a Bench refuses.
var errNoBench = fmt.Errorf("brfuse-agent in this vm refuses to measure, for it was started with -no-bench: %w", vnic.ErrUnsupported)

// benching returns the Bench with a context that has a deadline.
func (s *service) benching(ctx context.Context) (Bench, context.Context, context.CancelFunc, error) {
	if s.bench == nil {
		return nil, nil, nil, rpcerr.Encode(errNoBench)
	}
	ctx, cancel := limit(ctx)
	return s.bench, ctx, cancel, nil
}

// BenchOpen implements the call of that name.
func (s *service) BenchOpen(ctx context.Context, req *agentv1.BenchOpenRequest) (*agentv1.BenchOpenResponse, error) {
	b, ctx, cancel, err := s.benching(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	o := bench.Order{ID: req.GetId(), Topology: req.GetTopology()}
	for _, a := range []struct {
		text string
		to   *netip.Addr
	}{{req.GetOwn(), &o.Own}, {req.GetPeer(), &o.Peer}} {
		if a.text == "" {
			continue
		}
		if *a.to, err = netip.ParseAddr(a.text); err != nil {
			return nil, rpcerr.Encode(fmt.Errorf("address: %w: %w", err, vnic.ErrInvalid))
		}
	}
	p, err := b.Open(ctx, o)
	if err != nil {
		return nil, s.benchFailed(err)
	}
	resp := &agentv1.BenchOpenResponse{Netns: p.Netns, Port: uint32(p.Port)}
	for _, a := range p.Addresses {
		resp.Addresses = append(resp.Addresses, a.String())
	}
	return resp, nil
}

// BenchServe implements the call of that name.
func (s *service) BenchServe(ctx context.Context, req *agentv1.BenchServeRequest) (*agentv1.BenchServeResponse, error) {
	b, ctx, cancel, err := s.benching(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	port, err := b.Serve(ctx, req.GetId())
	if err != nil {
		return nil, s.benchFailed(err)
	}
	return &agentv1.BenchServeResponse{Port: uint32(port)}, nil
}

// BenchReach implements the call of that name.
func (s *service) BenchReach(ctx context.Context, req *agentv1.BenchReachRequest) (*agentv1.BenchReachResponse, error) {
	b, ctx, cancel, err := s.benching(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var to []netip.AddrPort
	for _, a := range req.GetAddresses() {
		ap, err := toAddrPort(a, req.GetPort())
		if err != nil {
			return nil, rpcerr.Encode(err)
		}
		to = append(to, ap)
	}
	reached, err := b.Reach(ctx, req.GetId(), to)
	if err != nil {
		return nil, s.benchFailed(err)
	}
	resp := &agentv1.BenchReachResponse{}
	for _, a := range reached {
		resp.Reached = append(resp.Reached, a.Addr().String())
	}
	return resp, nil
}

func toAddrPort(addr string, port uint32) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address: %w: %w", err, vnic.ErrInvalid)
	}
	if port == 0 || port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("port %d is not in 1-65535: %w", port, vnic.ErrInvalid)
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// BenchRun implements the call of that name.
func (s *service) BenchRun(ctx context.Context, req *agentv1.BenchRunRequest) (*agentv1.BenchRunResponse, error) {
	b, ctx, cancel, err := s.benching(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	to, err := toAddrPort(req.GetAddress(), req.GetPort())
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	r, err := b.Run(ctx, req.GetId(), to, netload.Spec{
		Kind: netload.Kind(req.GetKind()), Size: int(req.GetSize()), Flows: int(req.GetFlows()), Reverse: req.GetReverse(),
		Duration: time.Duration(req.GetDurationNanos()), WarmUp: time.Duration(req.GetWarmUpNanos()),
	})
	if err != nil {
		return nil, s.benchFailed(err)
	}
	return &agentv1.BenchRunResponse{
		ElapsedNanos: r.Elapsed.Nanoseconds(), Sent: r.Sent, Received: r.Received, Lost: r.Lost, Bytes: r.Bytes,
		Latency: r.Latency, Client: fromCost(r.Client), Server: fromCost(r.Server),
	}, nil
}

func fromCost(c bench.Cost) *agentv1.BenchCost {
	return &agentv1.BenchCost{
		ElapsedNanos: c.Elapsed.Nanoseconds(), UserNanos: c.User.Nanoseconds(), SystemNanos: c.System.Nanoseconds(),
		SoftirqNanos: c.Softirq.Nanoseconds(), IrqNanos: c.IRQ.Nanoseconds(), Retransmits: c.Retransmits, Drops: maps.Clone(c.Drops),
	}
}

// BenchClose implements the call of that name.
func (s *service) BenchClose(ctx context.Context, req *agentv1.BenchCloseRequest) (*agentv1.BenchCloseResponse, error) {
	if s.bench == nil {
		return &agentv1.BenchCloseResponse{}, nil
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	if err := s.bench.Close(ctx, req.GetId()); err != nil {
		return nil, s.benchFailed(err)
	}
	return &agentv1.BenchCloseResponse{}, nil
}

// benchEnds removes what a session has left to measure in, also when ctx has ended.
func (s *service) benchEnds(ctx context.Context) {
	if s.bench == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	if err := s.bench.CloseAll(ctx); err != nil {
		s.log.Error("remove what a bench left", "error", err)
	}
}

func (s *service) benchFailed(err error) error {
	s.log.Warn("bench", "error", err)
	return rpcerr.Encode(err)
}

// openBench returns what measures, nil when the agent refuses to. What an agent left
// that died is removed in either case.
func openBench(ctx context.Context, s Setup) Bench {
	b := bench.New(ctx, bench.Config{Log: s.Log})
	if s.NoBench {
		return nil
	}
	return b
}
