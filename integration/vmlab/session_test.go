package vmlab

import (
	"bufio"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

// fakeGuest is the guest's end of the wire.
type fakeGuest struct {
	conn net.Conn
	r    *bufio.Reader
}

func newFakeGuest(t *testing.T) (*session, *fakeGuest) {
	t.Helper()
	host, guest := net.Pipe()
	s := newSession(host)
	t.Cleanup(func() { guest.Close(); s.close() })
	return s, &fakeGuest{guest, bufio.NewReader(guest)}
}

func (g *fakeGuest) read() (labproto.Request, error) { return labproto.Read[labproto.Request](g.r) }

func (g *fakeGuest) answer(req labproto.Request, rep labproto.Reply) error {
	rep.Session, rep.ID = req.Session, req.ID
	return labproto.Write(g.conn, rep)
}

func TestSessionAsksAgainUntilTheGuestListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newFakeGuest(t)
		go func() {
			for range 3 { // two are lost
				req, err := g.read()
				if !assert.NoError(t, err) || !assert.Equal(t, labproto.OpHello, req.Op) {
					return
				}
				if req.ID == 3 {
					assert.NoError(t, g.answer(req, labproto.Reply{}))
				}
			}
		}()
		began := time.Now()
		require.NoError(t, s.hello(t.Context()))
		assert.Equal(t, 2*helloEvery, time.Since(began))
	})
}

func TestSessionDropsWhatIsNotItsOwn(t *testing.T) {
	s, g := newFakeGuest(t)
	go func() {
		req, err := g.read()
		if !assert.NoError(t, err) {
			return
		}
		_, err = g.conn.Write([]byte("{\"session\":\"" + req.Session + "\",\"id\":1,\"co")) // cut short
		assert.NoError(t, err)
		stale := req
		stale.Session = "the last one"
		assert.NoError(t, g.answer(stale, labproto.Reply{Code: 1}))
		unasked := req
		unasked.ID = 99
		assert.NoError(t, g.answer(unasked, labproto.Reply{Code: 2}))
		assert.NoError(t, g.answer(req, labproto.Reply{Code: 3}))
	}()
	rep, err := s.do(t.Context(), labproto.Request{Op: labproto.OpRun})
	require.NoError(t, err)
	assert.Equal(t, 3, rep.Code)
}

func TestSessionCancelsWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newFakeGuest(t)
		canceled := make(chan labproto.Request, 1)
		go func() {
			req, _ := g.read()
			next, _ := g.read()
			next.ID = req.ID // what Target must be
			canceled <- next
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.do(ctx, labproto.Request{Op: labproto.OpRun})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		got := <-canceled
		assert.Equal(t, labproto.OpCancel, got.Op)
		assert.Equal(t, got.ID, got.Target)
	})
}

func TestSessionIsBoundedWhenTheGuestReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newFakeGuest(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.do(ctx, labproto.Request{Op: labproto.OpRun})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestSessionFailsWhenTheGuestIsGone(t *testing.T) {
	s, g := newFakeGuest(t)
	go func() {
		_, err := g.read()
		assert.NoError(t, err)
		g.conn.Close()
	}()
	_, err := s.do(t.Context(), labproto.Request{Op: labproto.OpRun})
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = s.do(t.Context(), labproto.Request{Op: labproto.OpRun})
	require.Error(t, err)
}
