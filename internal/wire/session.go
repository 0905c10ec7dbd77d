package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/hashicorp/yamux"
)

// ErrClosed is why a session ended that this side closed.
var ErrClosed = errors.New("session closed")

// DefaultTimeout is how long a silent peer is borne: longer than a guest that has
// one busy vCPU under emulation is silent. An agent that is restarted is noticed
// at once in any case, so what this delays is only the notice of one that isn't.
const DefaultTimeout = 10 * time.Second

// Config sets up one end of sessions. The zero value is ready to use.
type Config struct {
	// Log gets what is worth knowing. Default: nothing is logged.
	Log *slog.Logger
	// Register adds this side's services to the server of a session. Optional.
	Register func(*ttrpc.Server)
	// Interval is the time between a host's heartbeats. Default: 1 s. It must be
	// well below the guest's Timeout.
	Interval time.Duration
	// Timeout is how long a silent peer is borne. Default: [DefaultTimeout].
	Timeout time.Duration
	// Handshake bounds a handshake. Default: 30 s.
	Handshake time.Duration
	// MaxServed is how many calls of the peer may be under way. Default: 64.
	MaxServed int
	// MaxCalls is how many calls to the peer may be under way, those that nobody
	// waits for any more included. Default: 64.
	MaxCalls int
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Register == nil {
		c.Register = func(*ttrpc.Server) {}
	}
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{{&c.Interval, time.Second}, {&c.Timeout, DefaultTimeout}, {&c.Handshake, 30 * time.Second}} {
		if *d.p <= 0 {
			*d.p = d.def
		}
	}
	for _, n := range []*int{&c.MaxServed, &c.MaxCalls} {
		if *n <= 0 {
			*n = 64
		}
	}
	return c
}

// Session is one session over a channel. It ends once and for good; a new one
// needs a new connection. Its methods are safe for concurrent use.
type Session struct {
	cfg   Config
	host  bool
	nonce Nonce
	conn  io.Closer
	mux   *yamux.Session

	ctx     context.Context // the session's life
	cancel  context.CancelCauseFunc
	serving context.Context // that of the peer's calls: ends behind the connection, so that none answers for the session's end
	stop    context.CancelFunc
	started chan struct{} // closed when start is over
	done    chan struct{}

	client  *ttrpc.Client
	server  *ttrpc.Server
	slots   chan struct{}  // one token a call to the peer under way
	orphans atomic.Int32   // those of them that nobody waits for any more
	work    gate           // calls in both directions
	wg      sync.WaitGroup // the session's own goroutines
}

// Host shakes hands with an agent over conn and starts a session. It owns conn
// from now on, also when it fails. Closing conn must make its Read and Write
// return.
func Host(ctx context.Context, conn io.ReadWriteCloser, cfg Config) (*Session, error) {
	return open(ctx, conn, cfg.withDefaults(), true)
}

// Guest waits for a daemon's handshake over conn and starts a session. It owns
// conn from now on, also when it fails.
func Guest(ctx context.Context, conn io.ReadWriteCloser, cfg Config) (*Session, error) {
	return open(ctx, conn, cfg.withDefaults(), false)
}

func open(ctx context.Context, conn io.ReadWriteCloser, cfg Config, host bool) (*Session, error) {
	late := fmt.Errorf("no handshake within %s: %w", cfg.Handshake, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Handshake, late)
	defer cancel()
	r := bufio.NewReader(conn)
	var nonce Nonce
	var err error
	if host {
		nonce, err = hostHandshake(ctx, r, conn)
	} else {
		nonce, err = guestHandshake(ctx, r, conn, cfg.Log)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	s := &Session{
		cfg: cfg, host: host, nonce: nonce, conn: conn,
		started: make(chan struct{}), done: make(chan struct{}), slots: make(chan struct{}, cfg.MaxCalls),
	}
	life := context.WithoutCancel(ctx)
	s.ctx, s.cancel = context.WithCancelCause(life)
	s.serving, s.stop = context.WithCancel(quiet(life))
	if err := s.start(ctx, &muxConn{r: r, conn: conn, in: newMuxCheck(host)}); err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	return s, nil
}

// start brings up mux, heartbeat and calls. When it fails, all of it is gone.
func (s *Session) start(ctx context.Context, conn *muxConn) (err error) {
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	defer func() {
		stop()
		close(s.started)
		if err != nil {
			s.fail(err)
			<-s.done
			err = s.Err()
		}
	}()
	role := yamux.Server
	if s.host {
		role = yamux.Client
	}
	if s.mux, err = role(conn, muxConfig()); err != nil {
		_ = s.conn.Close()
		s.stop()
		close(s.done)
		return err
	}
	go s.end()
	st, err := s.openStreams()
	if err != nil {
		return err
	}
	if err := s.startCalls(st); err != nil {
		return err
	}
	b := &beat{conn: st.beat, nonce: s.nonce, interval: s.cfg.Interval, timeout: s.cfg.Timeout, fail: s.blame}
	s.wg.Go(func() {
		if s.host {
			b.host(s.ctx)
		} else {
			b.guest()
		}
	})
	s.wg.Go(s.watch)
	return nil
}

// streams of a session.
type streams struct{ beat, out, in *yamux.Stream }

// openStreams opens this side's streams and accepts the other side's. Their
// numbers say what they are for.
func (s *Session) openStreams() (st streams, err error) {
	opened := map[uint32]**yamux.Stream{streamToHost: &st.out}
	accepted := map[uint32]**yamux.Stream{streamBeat: &st.beat, streamToGuest: &st.in}
	if s.host {
		opened = map[uint32]**yamux.Stream{streamBeat: &st.beat, streamToGuest: &st.out}
		accepted = map[uint32]**yamux.Stream{streamToHost: &st.in}
	}
	for range opened {
		stream, err := s.mux.OpenStream()
		if err != nil {
			return st, fmt.Errorf("open stream: %w", err)
		}
		*opened[stream.StreamID()] = stream
	}
	for range accepted {
		stream, err := s.mux.AcceptStream()
		if err != nil {
			return st, fmt.Errorf("accept stream: %w", err)
		}
		*accepted[stream.StreamID()] = stream // muxCheck lets no other number pass
	}
	return st, nil
}

// watch ends the session when the mux does, for its reason.
func (s *Session) watch() {
	_, err := s.mux.AcceptStream()
	switch {
	case err == nil:
		err = errProtocol // can't be: muxCheck lets no further stream pass
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		err = errPeerClosed
	}
	s.fail(err)
}

// blame ends the session for an error of one of its streams, unless that is
// but the consequence of an error of the mux, which watch reports.
func (s *Session) blame(err error) {
	if !s.mux.IsClosed() {
		s.fail(err)
	}
}

// fail ends the session for a reason. The first reason stays.
func (s *Session) fail(err error) { s.cancel(err) }

// end awaits the session's end and takes it apart.
func (s *Session) end() {
	<-s.ctx.Done()
	_ = s.conn.Close() // first: it makes everything else return
	_ = s.mux.Close()
	s.stop()
	<-s.started
	if s.client != nil {
		_ = s.client.Close()
	}
	if s.server != nil {
		_ = s.server.Close()
	}
	s.wg.Wait()
	if left := s.work.shut(s.cfg.Timeout); left > 0 {
		s.cfg.Log.Warn("calls outlive their session", "session", s.nonce, "calls", left)
	}
	close(s.done)
}

// Nonce is the session's nonce.
func (s *Session) Nonce() Nonce { return s.nonce }

// Client returns the client of the other side's services. A call that fails
// with the session fails with the session's error.
func (s *Session) Client() *ttrpc.Client { return s.client }

// Alive reports whether the session has not begun to end.
func (s *Session) Alive() bool { return s.ctx.Err() == nil }

// Ending is closed when the session begins to end.
func (s *Session) Ending() <-chan struct{} { return s.ctx.Done() }

// Done is closed when the session has ended and nothing of it is left.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err tells why the session ended, nil while it lives.
func (s *Session) Err() error { return context.Cause(s.ctx) }

// Close ends the session and waits until nothing of it is left. It may be
// called again.
func (s *Session) Close() error {
	s.fail(ErrClosed)
	<-s.done
	return nil
}
