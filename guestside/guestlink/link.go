package guestlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/wire"
	"github.com/brfuse/brfuse/vnic"
)

const (
	dialTimeout = 2 * time.Second
	backoffMin  = 10 * time.Millisecond
	backoffMax  = time.Second
)

// link is the channel to one VM's agent.
type link struct {
	cfg     Config
	vm      string
	channel wire.Channel
	log     *slog.Logger

	ctx    context.Context // the link's life
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when run has ended
	kick   chan struct{} // holds one token when someone is in a hurry
	turns  *turns        // of the agent's orders

	mu      sync.Mutex // guards what is below
	session *wire.Session
	lastErr error         // of the last dial, handshake or session
	changed chan struct{} // closed and replaced when session or lastErr changes
}

func startLink(ctx context.Context, cfg Config, vm string, ch wire.Channel) *link {
	k := &link{
		cfg: cfg, vm: vm, channel: ch, log: cfg.Log.With("vm", vm),
		turns: newTurns(), done: make(chan struct{}), kick: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	ctx, k.cancel = context.WithCancelCause(ctx)
	k.ctx = ctx
	go k.run(ctx)
	return k
}

func (k *link) close() {
	k.cancel(errRemoved)
	<-k.done
	k.turns.wait()
}

func (k *link) drop() {
	if s, _, _ := k.current(); s != nil {
		k.log.Info("agent has closed its end", "session", s.Nonce())
		_ = s.Close() // run sees it end
	}
}

func (k *link) hurry() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// run keeps a session until the link is closed.
func (k *link) run(ctx context.Context) {
	defer close(k.done)
	delay := backoffMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.kick:
			delay = backoffMin
		}
		began := time.Now()
		err := k.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != told {
			told = text
			k.log.Info("agent is away", "channel", k.channel, "error", err)
		}
		if time.Since(began) > backoffMax { // it was a session, or an agent that is not there yet
			delay = backoffMin
		}
		timer.Reset(delay)
		delay = min(2*delay, backoffMax)
	}
}

// once makes a session and returns why it could not, or why it ended.
func (k *link) once(ctx context.Context) error {
	s, host, err := k.dial(ctx)
	if err != nil {
		k.set(nil, err)
		return err
	}
	defer func() { _ = s.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	k.set(s, nil)
	k.log.Info("agent is there", "channel", k.channel, "session", s.Nonce())
	k.cfg.OnEvent(vnic.Event{Kind: vnic.EventAgentUp, VM: k.vm})
	host.open()
	<-s.Ending()
	host.shut()
	k.set(nil, s.Err())
	k.cfg.OnEvent(vnic.Event{Kind: vnic.EventAgentOff, VM: k.vm})
	<-s.Done()
	return s.Err()
}

func (k *link) dial(ctx context.Context) (*wire.Session, *host, error) {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := k.channel.Dial(limited)
	if err != nil {
		return nil, nil, err
	}
	h := newHost(k.vm, k.cfg.OnEvent)
	h.orders, h.turns = k.cfg.Orders, k.turns
	s, err := wire.Host(ctx, conn, wire.Config{
		Log: k.log, Interval: k.cfg.Heartbeat, Timeout: k.cfg.Silence, MaxServed: maxReports + maxOrders,
		Register: func(srv *ttrpc.Server) { agentv1.RegisterHostService(srv, h) },
	})
	if err != nil {
		return nil, nil, err
	}
	return s, h, nil
}

func (k *link) set(s *wire.Session, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session, k.lastErr = s, err
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *link) current() (s *wire.Session, changed <-chan struct{}, last error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.session, k.changed, k.lastErr
}

// await returns a live session, waiting for one up to the grace.
func (k *link) await(ctx context.Context) (*wire.Session, error) {
	began := time.Now()
	timer := time.NewTimer(k.cfg.Grace)
	defer timer.Stop()
	for {
		s, changed, last := k.current()
		if s != nil && s.Alive() {
			return s, nil
		}
		select {
		case <-changed:
		case <-k.ctx.Done():
			return nil, fmt.Errorf("vm %s: %w: %w", k.vm, vnic.ErrAgentUnavailable, errRemoved)
		case <-timer.C:
			return nil, k.unavailable(time.Since(began), last)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, fmt.Errorf("vm %s: wait for the agent: %w", k.vm, ctx.Err())
			}
			return nil, fmt.Errorf("%w (%w)", k.unavailable(time.Since(began), last), ctx.Err())
		}
	}
}

func (k *link) unavailable(waited time.Duration, last error) error {
	err := fmt.Errorf("vm %s: %w: no session on %s for %s", k.vm, vnic.ErrAgentUnavailable, k.channel, waited.Round(100*time.Millisecond))
	if last != nil {
		return fmt.Errorf("%w: %w: is brfuse-agent running in the guest?", err, last)
	}
	return fmt.Errorf("%w: is brfuse-agent running in the guest?", err)
}
