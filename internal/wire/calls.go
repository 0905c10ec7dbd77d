package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// maxPayload leaves room for ttrpc's envelope within maxMessage.
	maxPayload = maxMessage - 4096
)

// errBusy is returned when the peer leaves too many calls without an answer.
var errBusy = errors.New("too many calls without an answer")

// startCalls sets up the client and the server of the session.
func (s *Session) startCalls(st streams) error {
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(s.serve))
	if err != nil {
		return err
	}
	s.cfg.Register(server)
	s.server = server
	s.wg.Add(1) // until ttrpc closes the connection as the last thing it does
	in := newGuard(s.ctx, st.in, true, s.cfg.MaxServed, s.fail, s.wg.Done)
	l := &oneShot{conn: in, closed: make(chan struct{})}
	s.wg.Go(func() {
		_ = server.Serve(s.serving, l) // ends with the session only
	})
	out := newGuard(s.ctx, st.out, false, s.cfg.MaxCalls, s.fail, func() {})
	s.wg.Add(1) // until the client's goroutine ends
	s.client = ttrpc.NewClient(out, ttrpc.WithUnaryClientInterceptor(s.call), ttrpc.WithOnClose(func() {
		s.blame(errPeerClosed)
		s.wg.Done()
	}))
	return nil
}

// serve runs a call of the peer.
func (s *Session) serve(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	if !s.work.enter() {
		return nil, status.Error(codes.Unavailable, ErrClosed.Error())
	}
	defer s.work.leave()
	resp, err := method(ctx, unmarshal)
	if m, ok := resp.(proto.Message); err == nil && ok {
		if n := proto.Size(m); n > maxPayload {
			return nil, status.Errorf(codes.ResourceExhausted, "answer of %d bytes, at most %d are allowed", n, maxPayload)
		}
	}
	return resp, err
}

// call makes a call to the peer. ttrpc's own would block on a peer that
// doesn't read, whatever ctx says, and would complain about the answer to a
// call that was given up; so it runs beside, and its answer may come to nobody.
func (s *Session) call(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
	if len(req.Payload) > maxPayload {
		return status.Errorf(codes.ResourceExhausted, "request of %d bytes, at most %d are allowed", len(req.Payload), maxPayload)
	}
	if err := s.slot(ctx); err != nil {
		return err
	}
	req.TimeoutNano = peerTimeout(req.TimeoutNano)
	got := make(chan error) // nil is sent when r is filled in
	var r ttrpc.Response
	go func() {
		defer s.work.leave()
		defer func() { <-s.slots }()
		err := invoke(context.WithoutCancel(ctx), req, &r)
		select {
		case got <- err:
		case <-ctx.Done():
			s.orphans.Add(-1)
		}
	}()
	select {
	case <-ctx.Done():
		s.orphans.Add(1)
		return ctx.Err()
	case err := <-got:
		if err != nil {
			return s.broken(ctx, err)
		}
		resp.Status, resp.Payload = r.Status, r.Payload
		return checkFields(resp.Payload)
	}
}

// broken ends the session for an error of the client, which is never an answer:
// answers are in the response. It returns why the session ended.
func (s *Session) broken(ctx context.Context, err error) error {
	if errors.Is(err, ttrpc.ErrClosed) {
		err = errPeerClosed
	}
	s.blame(fmt.Errorf("call: %w", err))
	select {
	case <-s.ctx.Done():
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slot reserves a call. When all slots are held by calls that nobody waits for
// any more, the session ends: later calls would wait in vain, too.
func (s *Session) slot(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return s.Err()
	case <-ctx.Done():
		if n := int(s.orphans.Load()); n >= cap(s.slots) {
			s.fail(fmt.Errorf("%d calls: %w", n, errBusy))
		}
		return ctx.Err()
	}
	if !s.work.enter() {
		<-s.slots
		return s.Err()
	}
	return nil
}

// peerTimeout makes the peer's deadline a little earlier than ours, so that it
// can still tell what it was waiting for.
func peerTimeout(nanos int64) int64 {
	if nanos <= 0 {
		return nanos
	}
	return max(1, nanos-min(nanos/10, int64(500*time.Millisecond)))
}

// quiet returns ctx with a logger for ttrpc that drops all: what ttrpc has to
// say is in the session's error, too.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// oneShot is a listener with one connection.
type oneShot struct {
	conn   net.Conn
	taken  sync.Once
	close  sync.Once
	closed chan struct{}
}

func (l *oneShot) Accept() (conn net.Conn, err error) {
	l.taken.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close closes the connection, too, when nobody has taken it.
func (l *oneShot) Close() (err error) {
	l.close.Do(func() { close(l.closed) })
	l.taken.Do(func() { err = l.conn.Close() })
	return err
}

func (l *oneShot) Addr() net.Addr { return l.conn.LocalAddr() }
