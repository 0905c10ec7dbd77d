package agentd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// callLimit bounds a call whose caller gave no deadline.
const callLimit = time.Minute

// service serves the calls of the daemon by an Agent.
type service struct {
	agent   Agent
	reports *Reports
	info    *agentv1.InfoResponse
	log     *slog.Logger
	silence time.Duration
	client  *hostclient.Client // nil: nobody asks the daemon for anything
	resolve func(ctx context.Context, runtime, container string) (vnic.Container, error)
	bench   Bench // nil: it is refused
}

func newService(cfg Config) *service {
	return &service{
		agent: cfg.Agent, reports: cfg.Reports, log: cfg.Log, silence: cfg.Silence,
		client: cfg.Client, resolve: cfg.Resolve, bench: cfg.Bench,
		info: &agentv1.InfoResponse{
			Version: cfg.Version,
			BootId:  line("/proc/sys/kernel/random/boot_id"),
			Kernel:  line("/proc/sys/kernel/osrelease"),
		},
	}
}

// line reads a file of one line; what can't be read is empty.
func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// Info implements the call of that name.
func (s *service) Info(context.Context, *agentv1.InfoRequest) (*agentv1.InfoResponse, error) {
	return s.info, nil
}

// Prepare implements the call of that name.
func (s *service) Prepare(ctx context.Context, req *agentv1.PrepareRequest) (*agentv1.PrepareResponse, error) {
	m, err := target(req, req.GetHandover())
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	if err := s.agent.Prepare(ctx, m); err != nil {
		return nil, s.failed("prepare", m, err)
	}
	return &agentv1.PrepareResponse{}, nil
}

// Move implements the call of that name.
func (s *service) Move(ctx context.Context, req *agentv1.MoveRequest) (*agentv1.MoveResponse, error) {
	m, err := toMove(req)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	nic, times, err := s.agent.Attach(ctx, m)
	if err != nil {
		return nil, s.failed("move", m, err)
	}
	return &agentv1.MoveResponse{
		Nic: fromNIC(nic), AppearNanos: times.Appear.Nanoseconds(), MoveNanos: times.Move.Nanoseconds(),
		ConfigureNanos: times.Configure.Nanoseconds(),
	}, nil
}

// Configure implements the call of that name.
func (s *service) Configure(ctx context.Context, req *agentv1.MoveRequest) (*agentv1.ConfigureResponse, error) {
	m, err := toMove(req)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	nic, err := s.agent.Configure(ctx, m)
	if err != nil {
		return nil, s.failed("configure", m, err)
	}
	return &agentv1.ConfigureResponse{Nic: fromNIC(nic)}, nil
}

// Release implements the call of that name.
func (s *service) Release(ctx context.Context, req *agentv1.ReleaseRequest) (*agentv1.ReleaseResponse, error) {
	m, err := target(req, req.GetNetns() == "") // of one that was handed over
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	if err := s.agent.Release(ctx, m); err != nil {
		return nil, s.failed("release", m, err)
	}
	return &agentv1.ReleaseResponse{}, nil
}

// Retrieve implements the call of that name.
func (s *service) Retrieve(ctx context.Context, req *agentv1.MoveRequest) (*agentv1.RetrieveResponse, error) {
	m, err := toRetrieval(req)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	nic, err := s.agent.Retrieve(ctx, m)
	if err != nil {
		return nil, s.failed("retrieve", m, err)
	}
	return &agentv1.RetrieveResponse{Nic: fromNIC(nic)}, nil
}

// List implements the call of that name.
func (s *service) List(ctx context.Context, _ *agentv1.ListRequest) (*agentv1.ListResponse, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	nics, err := s.agent.NICs(ctx)
	if err != nil {
		return nil, s.failed("list vnics", vnic.Move{}, err)
	}
	return &agentv1.ListResponse{Nics: fromNICs(nics)}, nil
}

// failed logs an error on its way to the daemon.
func (s *service) failed(what string, m vnic.Move, err error) error {
	s.log.Warn(what, "id", m.ID, "mac", m.MAC, "netns", m.Netns, "interface", m.Interface, "error", err)
	return rpcerr.Encode(err)
}

// limit gives a call a deadline that has none.
func limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, callLimit, fmt.Errorf("no end within %s: %w", callLimit, context.DeadlineExceeded))
}

// Check implements the call of that name.
func (s *service) Check(ctx context.Context, req *agentv1.MoveRequest) (*agentv1.CheckResponse, error) {
	m, err := toMove(req)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	if err := s.agent.Check(ctx, m); err != nil {
		return nil, rpcerr.Encode(err) // the answer to a question, and no failure
	}
	return &agentv1.CheckResponse{}, nil
}

// Resolve implements the call of that name.
func (s *service) Resolve(ctx context.Context, req *agentv1.ResolveRequest) (*agentv1.ResolveResponse, error) {
	if s.resolve == nil {
		return nil, rpcerr.Encode(fmt.Errorf("find container: %w", vnic.ErrUnsupported))
	}
	runtime, container := req.GetRuntime(), req.GetContainer()
	if max(len(runtime), len(container)) > maxReference || agentconv.Printable(runtime+container) != runtime+container {
		return nil, rpcerr.Encode(fmt.Errorf("container %q of %q: unprintable, or longer than %d bytes: %w",
			cut(container), cut(runtime), maxReference, vnic.ErrInvalid))
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	c, err := s.resolve(ctx, runtime, container)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.ResolveResponse{
		Id: agentconv.Printable(c.ID), Name: agentconv.Printable(c.Name), Pod: agentconv.Printable(c.Pod), Netns: agentconv.Printable(c.Netns),
	}, nil
}
