package vmlab

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

// helloEvery is how often a session is asked for until the guest answers: what
// was written before the guest reset its port may be lost.
const helloEvery = time.Second

// session is the host's end of a guest's port, from boot until QEMU is gone.
type session struct {
	conn  net.Conn
	nonce string

	writeMu sync.Mutex // held while a line is written

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan labproto.Reply

	lost chan struct{} // closed when no more replies will come
}

// newSession takes over conn. The guest need not be listening yet.
func newSession(conn net.Conn) *session {
	s := &session{conn: conn, nonce: rand.Text(), pending: map[uint64]chan labproto.Reply{}, lost: make(chan struct{})}
	go s.read()
	return s
}

// read hands replies to those who wait until the connection ends.
func (s *session) read() {
	defer close(s.lost)
	r := bufio.NewReader(s.conn)
	for {
		rep, err := labproto.Read[labproto.Reply](r)
		if err != nil {
			return
		}
		if rep.Session != s.nonce {
			continue // of a session before this one
		}
		s.mu.Lock()
		ch, ok := s.pending[rep.ID]
		delete(s.pending, rep.ID)
		s.mu.Unlock()
		if ok {
			ch <- rep // has room for it
		}
	}
}

// hello waits until the guest has joined the session.
func (s *session) hello(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, helloEvery)
		_, err := s.do(try, labproto.Request{Op: labproto.OpHello})
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// do sends a request and waits for its reply. When ctx ends first, the guest is
// told to end what it does for it. What the guest reports as failed is an error.
func (s *session) do(ctx context.Context, req labproto.Request) (labproto.Reply, error) {
	ch := make(chan labproto.Reply, 1)
	s.mu.Lock()
	s.lastID++
	req.Session, req.ID = s.nonce, s.lastID
	s.pending[req.ID] = ch
	s.mu.Unlock()
	defer s.forget(req.ID)

	if err := s.write(ctx, req); err != nil {
		return labproto.Reply{}, err
	}
	select {
	case rep := <-ch:
		if rep.Error != "" {
			return rep, errors.New(rep.Error)
		}
		return rep, nil
	case <-s.lost:
		return labproto.Reply{}, fmt.Errorf("guest is gone: %w", net.ErrClosed)
	case <-ctx.Done():
		s.cancel(context.WithoutCancel(ctx), req)
		return labproto.Reply{}, fmt.Errorf("no answer from the guest: %w", context.Cause(ctx))
	}
}

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
}

// cancel tells the guest to end a request, if it takes the word at once.
func (s *session) cancel(ctx context.Context, req labproto.Request) {
	if req.Op == labproto.OpHello {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, helloEvery)
	defer cancel()
	s.write(ctx, labproto.Request{Session: s.nonce, Op: labproto.OpCancel, Target: req.ID}) //nolint:errcheck // the caller has its error already
}

// write writes one line, or fails when ctx ends. A line cut short ends with
// the newline that begins the next one.
func (s *session) write(ctx context.Context, req labproto.Request) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.conn.SetWriteDeadline(time.Unix(1, 0)) //nolint:errcheck // fails when closed only
	})
	err := labproto.Write(s.conn, req)
	if !stop() {
		<-ended
		s.conn.SetWriteDeadline(time.Time{}) //nolint:errcheck // fails when closed only
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("guest takes no request: %w", context.Cause(ctx))
	}
	return err
}

// close ends the session. Calls in flight fail.
func (s *session) close() {
	s.conn.Close()
	<-s.lost
}
