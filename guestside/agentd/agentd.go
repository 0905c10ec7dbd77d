// Package agentd serves a guest's agent over the channel to its hypervisor.
//
// It opens the VM's end of the channel, awaits the daemon, and does what the
// daemon asks as long as the session lasts; then it opens the channel anew. By the
// same session the front doors, which serve container engines, ask the daemon.
package agentd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/ttrpc"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/internal/wire"
	"github.com/brfuse/brfuse/vnic"
)

// DefaultChannel is the name of the virtio-serial port that is opened when no
// other channel is named.
const DefaultChannel = wire.PortName

// Agent does the work. Every method may be called again with the same outcome,
// and returns soon after its ctx has ended.
type Agent interface {
	// Prepare checks that a pod can take a vNIC.
	Prepare(ctx context.Context, m vnic.Move) error
	// Attach awaits a vNIC, moves it into its pod and configures it.
	Attach(ctx context.Context, m vnic.Move) (vnic.NIC, guestside.MoveTimes, error)
	// Configure gives a moved vNIC addresses and routes.
	Configure(ctx context.Context, m vnic.Move) (vnic.NIC, error)
	// Release takes a vNIC from its pod.
	Release(ctx context.Context, m vnic.Move) error
	Retrieve(ctx context.Context, m vnic.Move) (vnic.NIC, error)
	// NICs lists the vNICs that are there.
	NICs(ctx context.Context) ([]vnic.NIC, error)
	// Check compares a vNIC with its order.
	Check(ctx context.Context, m vnic.Move) error
}

// Config sets up [Run].
type Config struct {
	// Agent does the work. Required.
	Agent Agent
	// Channel is the name of a virtio-serial port or the path of its device,
	// "vsock:PORT", or "unix:PATH" for tests. Default: [DefaultChannel].
	Channel string
	// Reports are what the daemon is to be told. Optional.
	Reports *Reports
	// Client is told of sessions, so that it can make calls in them. Optional.
	Client *hostclient.Client
	// Resolve finds a container of an engine, by its ID, the beginning of it, or its
	// name. Optional.
	Resolve func(ctx context.Context, runtime, container string) (vnic.Container, error)
	// Bench measures for the daemon. Default: it is refused.
	Bench Bench
	// Version is the agent's, for people to read.
	Version string
	// Log gets the comings and goings of sessions. Default: nothing is logged.
	Log *slog.Logger
	// Silence is how long a silent daemon is borne. Default: 10 s.
	Silence time.Duration
}

// How long Run waits after a connection on which no session came about: longer
// each time.
const (
	retryMin = 10 * time.Millisecond
	retryMax = 500 * time.Millisecond
)

// Run serves one session after the other until ctx ends, and returns its
// reason. It fails at once only when the channel's name makes no sense or its
// socket can't be listened on; a port that does not exist yet is awaited.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Reports == nil {
		cfg.Reports = new(Reports)
	}
	l, err := wire.Listen(cfg.Channel, cfg.Log)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	svc := newService(cfg)
	for retry := retryMin; ; {
		err := session(ctx, l, svc)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errAccept):
			return err
		case err == nil:
			retry = retryMin
			continue
		}
		cfg.Log.Debug("no session", "error", err)
		if err := pause(ctx, retry); err != nil {
			return err
		}
		retry = min(2*retry, retryMax)
	}
}

// errAccept is returned when a listener is broken.
var errAccept = errors.New("accept")

// maxCalls is how many calls to the daemon may be under way: as many as a client
// makes at most, and some for reports.
const maxCalls = hostclient.MaxCalls + 8

// session awaits a session and serves it. It returns nil when there was one.
func session(ctx context.Context, l wire.Listener, svc *service) error {
	conn, err := l.Accept(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errAccept, err)
	}
	s, err := wire.Guest(ctx, conn, wire.Config{
		Log: svc.log, Timeout: svc.silence, MaxCalls: maxCalls,
		Register: func(srv *ttrpc.Server) { agentv1.RegisterAgentService(srv, svc) },
	})
	if err != nil {
		return err
	}
	svc.log.Info("daemon is there", "session", s.Nonce())
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if svc.client != nil {
		svc.client.Set(s)
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		svc.reports.tell(life, agentv1.NewHostClient(s.Client()), svc.log)
	}()
	<-s.Ending()
	if svc.client != nil {
		svc.client.Set(nil)
	}
	cancel()
	svc.benchEnds(ctx) // or Done waits for a load that nobody waits for
	<-told
	<-s.Done()
	svc.benchEnds(ctx) // of a call that was under way
	svc.log.Info("daemon is away", "session", s.Nonce(), "error", s.Err())
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
