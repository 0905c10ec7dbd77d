package netload

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options are a server's. The zero value is right.
type Options struct {
	// Observe is called around each measured phase. Default: none.
	Observe Observer
	// Log gets what runs and what peers do wrong. Default: nowhere.
	Log *slog.Logger
	// MaxDuration bounds a run, its warm-up included. Default and most: [MaxDuration].
	MaxDuration time.Duration
	// Within runs fn where the server's sockets are to be made, such as in
	// another network namespace. Default: it calls fn. It may be called from any goroutine.
	Within func(fn func() error) error
}

// Bounds of a server.
const (
	maxRuns    = 4   // at once
	maxGuests  = 256 // connections that are a control's or not yet known
	listenTry  = 8   // ports, if any port will do
	backlog    = 256
	acceptRest = 100 * time.Millisecond // when there are no descriptors left
)

// Server is the other end of runs. It is safe for concurrent use.
type Server struct {
	opts  Options
	log   *slog.Logger
	addr  netip.AddrPort
	tcp   int
	udp   int
	socks sockets // down once s shall end

	guests chan struct{} // a token for each
	work   sync.WaitGroup
	cancel context.CancelFunc // of what work waits for
	free   func()             // closes the two sockets, once

	mu   sync.RWMutex // guards runs
	runs map[runID]*served
}

// served is a run at its server.
type served struct {
	*party
	local netip.Addr // that the client knows the server by
	peer  netip.Addr // the client's
}

// Listen starts a server on addr, TCP and UDP. Port 0 takes a free one. A
// zone in addr is an interface's index. It runs until ctx ends or Close, which
// is to be called in any case.
func Listen(ctx context.Context, addr netip.AddrPort, opts Options) (*Server, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxDuration <= 0 || opts.MaxDuration > MaxDuration {
		opts.MaxDuration = MaxDuration
	}
	if opts.Within == nil {
		opts.Within = func(fn func() error) error { return fn() }
	}
	s := &Server{
		opts: opts, log: opts.Log,
		guests: make(chan struct{}, maxGuests), runs: map[runID]*served{},
	}
	if err := opts.Within(func() error { return s.bind(addr) }); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	s.start(ctx)
	return s, nil
}

func (s *Server) start(ctx context.Context) {
	s.socks.add(s.tcp)
	s.socks.add(s.udp)
	ctx, s.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, s.shutdown)
	s.free = sync.OnceFunc(func() {
		stop()
		s.socks.close(s.tcp)
		s.socks.close(s.udp)
	})
	s.work.Go(func() { s.accept(ctx) })
	s.work.Go(s.greet)
}

// bind makes the two sockets. A port that is free for TCP and not for UDP is
// tried again with another, if addr leaves it open.
func (s *Server) bind(addr netip.AddrPort) error {
	for try := 1; ; try++ {
		err := s.bindOnce(addr)
		if err == nil || addr.Port() != 0 || try == listenTry || !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
}

func (s *Server) bindOnce(addr netip.AddrPort) error {
	if err := checkAddr(addr); err != nil {
		return err
	}
	_, family := sockaddr(addr)
	reuse := flag(unix.SOL_SOCKET, unix.SO_REUSEADDR)
	// The client speaks first: accept returns what has spoken.
	tcp, err := newSocket(family, unix.SOCK_STREAM, reuse, bindTo(addr), flag(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT))
	if err != nil {
		return err
	}
	if err := unix.Listen(tcp, backlog); err != nil {
		return errors.Join(err, unix.Close(tcp))
	}
	if s.addr, err = localAddr(tcp); err != nil {
		return errors.Join(err, unix.Close(tcp))
	}
	// The flows' sockets share the port: see meet.
	udp, err := newSocket(family, unix.SOCK_DGRAM, reuse, bindTo(s.addr))
	if err != nil {
		return errors.Join(err, unix.Close(tcp))
	}
	s.tcp, s.udp = tcp, udp
	return nil
}

// Addr returns the address that s listens on.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends all runs, stops listening and waits for both. It may be called again.
func (s *Server) Close() error {
	s.cancel()
	s.shutdown()
	s.work.Wait()
	s.free()
	return nil
}

// shutdown ends all waits.
func (s *Server) shutdown() {
	s.socks.shutdown()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.runs {
		r.socks.shutdown()
	}
}

// errBusy is returned to a client when there is no room for its run.
var errBusy = fmt.Errorf("%d runs are going on already; try again later", maxRuns)

// newRun takes a run in.
func (s *Server) newRun(spec Spec, local, peer netip.Addr) (*served, error) {
	if spec.total() > s.opts.MaxDuration {
		return nil, fmt.Errorf("%w: duration %s with the warm-up; this server takes up to %s", ErrSpec, spec.total(), s.opts.MaxDuration)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	r := &served{party: newParty(spec, runID(binary.BigEndian.Uint64(b[:])), s.opts.Within), local: local, peer: peer}
	r.serve()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.runs) >= maxRuns {
		return nil, errBusy
	}
	if s.socks.isDown() {
		return nil, errors.New("the server is closing")
	}
	s.runs[r.run] = r
	return r, nil
}

func (s *Server) find(id runID) *served {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.runs[id]
}

func (s *Server) drop(r *served) {
	s.mu.Lock()
	delete(s.runs, r.run)
	s.mu.Unlock()
	r.close()
}
