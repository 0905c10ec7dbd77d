package daemon

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
	"github.com/brfuse/brfuse/vnic"
)

// attachC1 attaches by a member's API what c has, and detaches it.
func attachC1(ctx context.Context, m *member) error {
	a, err := m.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "c1", Pod: "web"})
	if err == nil {
		_, err = m.client.Detach(ctx, &brfusev1.DetachRequest{Id: a.GetId()})
	}
	return rpcerr.Decode(err)
}

// TestOwnerDies and comes back, at its address and at another one.
func TestOwnerDies(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	require.NoError(t, attachC1(t.Context(), a))
	addr := c.status().API
	c.stop(t)
	_, err := a.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "c1", Pod: "web"})
	assert.Equal(t, codes.Unavailable, status.Code(err))
	err = rpcerr.Decode(err)
	require.ErrorIs(t, err, vnic.ErrHypervisorUnavailable)
	require.ErrorContains(t, err, "hypervisor c at "+addr+": ")
	require.ErrorContains(t, err, "`brfuse hosts rm c`")
	assert.NotContains(t, err.Error(), "desc =")

	c.start(t, addr)
	require.Eventually(t, func() bool { return attachC1(t.Context(), a) == nil }, 10*time.Second, 20*time.Millisecond)

	old := a.api.peers.known["c"].conn
	c.stop(t)
	c.start(t, "127.0.0.1:0")
	require.NotEqual(t, addr, c.status().API)
	require.NoError(t, attachC1(t.Context(), a))
	assert.Len(t, a.api.peers.known, 1)
	assert.Equal(t, "SHUTDOWN", old.GetState().String())
}

// TestOwnerDiesInACall: what becomes of the call is not known, and that is said.
func TestOwnerDiesInACall(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	c.world.Before("plug", func(ctx context.Context) error {
		go c.stop(t) // it waits for this call, which it cancels
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, attachC1(t.Context(), a), vnic.ErrHypervisorUnavailable)
}

func TestOwnerThatCannotBeCalled(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, a, c *member)
		want  string
	}{
		{"it serves no API", func(_ *testing.T, _, c *member) { c.change(func(m *member) { m.self.API = "" }) }, "hypervisor c: it serves no API to others: start its brfused with --api-listen"},
		{"its address is none", func(_ *testing.T, _, c *member) { c.change(func(m *member) { m.self.API = "nowhere" }) }, "hypervisor c: its API is at no HOST:PORT"},
		{"no certificate of our own", func(_ *testing.T, a, _ *member) { a.api.peers.tls = nil }, "this brfused, of a, has no certificate to call others"},
		{"the daemon stops", func(_ *testing.T, a, _ *member) { a.api.peers.close() }, "this brfused, of a, is stopping"},
		{"its certificate is another's", func(t *testing.T, _, c *member) { t.Helper(); c.c.ca.Write(t, c.files, nil, "b") }, "is for b, not for c or 127.0.0.1"},
		{"our certificate is not of its CA", func(t *testing.T, _, c *member) {
			t.Helper()
			cert, other := c.c.ca.Files(t, "c"), tlstest.NewCA(t).Files(t)
			cert.CA = other.CA
			src, err := tlsfiles.Open(cert, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			c.api.cfg.TLS = src
			c.stop(t)
			c.start(t, "127.0.0.1:0")
		}, "hypervisor c at 127.0.0.1:"}, // why is in TLS's alert, if the connection lasts until it is read
	} {
		t.Run(tt.name, func(t *testing.T) {
			cl := newCluster(t, "a", "c")
			a, c := cl.member("a"), cl.member("c")
			tt.spoil(t, a, c)
			err := attachC1(t.Context(), a)
			require.ErrorIs(t, err, vnic.ErrHypervisorUnavailable)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestPeerByAddress: a certificate that has the address alone is one, too.
func TestPeerByAddress(t *testing.T) {
	cl := newCluster(t, "a", "c")
	cl.ca.Write(t, cl.member("c").files, nil, "127.0.0.1")
	require.NoError(t, attachC1(t.Context(), cl.member("a")))
}

// TestKeep: connections to those that have gone are closed.
func TestKeep(t *testing.T) {
	cl := newCluster(t, "a", "b", "c")
	a := cl.member("a")
	for _, name := range []string{"b", "c"} {
		_, err := a.api.peers.get(cl.member(name).status().Hypervisor)
		require.NoError(t, err)
	}
	b, gone := cl.member("b").status(), cl.member("c").status()
	conn := a.api.peers.known["c"].conn
	a.api.peers.keep([]vnic.HypervisorStatus{b, gone})
	assert.Len(t, a.api.peers.known, 2)
	gone.State = vnic.HypervisorReleased
	a.api.peers.keep([]vnic.HypervisorStatus{b, gone})
	assert.Contains(t, a.api.peers.known, "b")
	assert.Equal(t, "SHUTDOWN", conn.GetState().String())
	a.api.peers.keep(nil)
	assert.Empty(t, a.api.peers.known)
}

// cable joins two ends until it is pulled: then what is written is lost, and nobody is
// told.
type cable struct {
	pulled chan struct{}
	plugs  chan net.Conn // to be accepted
}

type cableEnd struct {
	net.Conn

	pulled <-chan struct{}
}

// Write implements [net.Conn].
func (e cableEnd) Write(b []byte) (int, error) {
	select {
	case <-e.pulled:
		return len(b), nil
	default:
		return e.Conn.Write(b)
	}
}

// dial is the client's side. It waits when the cable is pulled.
func (c *cable) dial(ctx context.Context, _ string) (net.Conn, error) {
	select {
	case <-c.pulled:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	here, there := net.Pipe()
	c.plugs <- cableEnd{there, c.pulled}
	return cableEnd{here, c.pulled}, nil
}

// Accept implements [net.Listener].
func (c *cable) Accept() (net.Conn, error) {
	conn, ok := <-c.plugs
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// Close implements [net.Listener].
func (c *cable) Close() error { return nil }

// Addr implements [net.Listener].
func (c *cable) Addr() net.Addr { return &net.TCPAddr{} }

// waiting is a server whose attaches take until the caller is gone.
type waiting struct {
	brfusev1.UnimplementedBrfuseServer

	under, ended chan struct{}
}

func (w *waiting) Attach(ctx context.Context, _ *brfusev1.AttachRequest) (*brfusev1.Attachment, error) {
	close(w.under)
	<-ctx.Done()
	close(w.ended)
	return nil, ctx.Err()
}

// TestCablePulled: both ends of a call learn of it in bounded time, and so do later
// calls. The clock is the test's.
func TestCablePulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := tlstest.NewCA(t).Files(t, "c")
		src, err := tlsfiles.Open(files, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		w := &waiting{under: make(chan struct{}), ended: make(chan struct{})}
		api := &API{cfg: APIConfig{Log: slog.New(slog.DiscardHandler), TLS: src}, service: w}
		srv := api.ServerTLS(t.Context())
		c := &cable{pulled: make(chan struct{}), plugs: make(chan net.Conn)}
		var running sync.WaitGroup
		running.Go(func() { _ = srv.Serve(c) })
		p := newPeers("a", src)
		p.dial = c.dial
		pr, err := p.get(vnic.Hypervisor{Name: "c", API: "192.0.2.3:7443"})
		require.NoError(t, err)
		attach := func() error {
			_, err := forward(t.Context(), pr, &brfusev1.AttachRequest{}, nil, brfusev1.BrfuseClient.Attach)
			return err
		}
		var start time.Time
		go func() {
			<-w.under
			<-time.After(time.Hour) // a call may be long, as long as its owner is there
			start = time.Now()
			close(c.pulled)
		}()
		require.ErrorIs(t, attach(), vnic.ErrHypervisorUnavailable)
		assert.LessOrEqual(t, time.Since(start), pingTime+pingLimit)
		<-w.ended
		assert.LessOrEqual(t, time.Since(start), pingTime+pingLimit+time.Second)
		start = time.Now()
		err = attach()
		require.ErrorIs(t, err, vnic.ErrHypervisorUnavailable)
		assert.LessOrEqual(t, time.Since(start), dialLimit+redialMax)
		p.close()
		close(c.plugs)
		srv.Stop()
		running.Wait()
	})
}

func TestReason(t *testing.T) {
	for in, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.3:7443: connect: connection refused"`: "dial tcp 192.0.2.3:7443: connect: connection refused",
		`last connection error: connection error: desc = "transport: authentication handshake failed: \"x\" is bad"`:      `authentication handshake failed: "x" is bad`,
		`error reading from server: EOF`: "error reading from server: EOF",
		`odd: desc = none`:               "odd: desc = none",
	} {
		assert.Equal(t, want, reason(in))
	}
}

// TestFailure: only what says nothing of the call itself is the connection's.
func TestFailure(t *testing.T) {
	p := &peer{Hypervisor: vnic.Hypervisor{Name: "c", API: "192.0.2.3:7443"}}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context //nolint:containedctx // what the case is about
		err  error
		want error
	}{
		{"of vnic", t.Context(), rpcerr.Encode(vnic.ErrAgentUnavailable), vnic.ErrAgentUnavailable},
		{"lost", t.Context(), status.Error(codes.Unavailable, "EOF"), vnic.ErrHypervisorUnavailable},
		{"closed under the call", t.Context(), status.Error(codes.Canceled, "the client connection is closing"), vnic.ErrHypervisorUnavailable},
		{"cancelled", ended, status.Error(codes.Canceled, "context canceled"), context.Canceled},
		{"too late", t.Context(), status.Error(codes.DeadlineExceeded, "late"), context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.ErrorIs(t, p.failure(tt.ctx, tt.err), tt.want)
		})
	}
	other := p.failure(t.Context(), status.Error(codes.Unimplemented, "unknown method"))
	assert.Equal(t, codes.Unimplemented, status.Code(other))
	require.NotErrorIs(t, other, vnic.ErrHypervisorUnavailable)
}

// TestStrangers are not let in, and a certificate that is renewed interrupts nobody.
func TestStrangersAndRenewal(t *testing.T) {
	cl := newCluster(t, "a")
	a := cl.member("a")
	stranger, err := tlsfiles.Open(tlstest.NewCA(t).Files(t), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for name, creds := range map[string]credentials.TransportCredentials{
		"another CA": credentials.NewTLS(stranger.Client("a")),
		"no TLS":     insecure.NewCredentials(),
	} {
		cc, err := grpc.NewClient("passthrough:///"+a.status().API, grpc.WithTransportCredentials(creds))
		require.NoError(t, err)
		_, err = brfusev1.NewBrfuseClient(cc).List(t.Context(), &brfusev1.ListRequest{})
		assert.Equal(t, codes.Unavailable, status.Code(err), name)
		require.NoError(t, cc.Close())
	}
	assert.Zero(t, a.log.calls("List"))

	stream, err := a.client.Watch(t.Context(), &brfusev1.WatchRequest{})
	require.NoError(t, err)
	_, err = a.client.List(t.Context(), &brfusev1.ListRequest{})
	require.NoError(t, err)
	other := tlstest.NewCA(t)
	other.Write(t, a.files, nil, "a")
	next := &cluster{ca: other}
	_, err = next.dial(t, a.status().Hypervisor).Attach(t.Context(), &brfusev1.AttachRequest{Vm: "a1", Pod: "web"})
	require.NoError(t, err, "the new certificate is in use")
	ev, err := stream.Recv()
	require.NoError(t, err, "the old connection, too")
	assert.Equal(t, "a1", ev.GetAttachment().GetVm())
}
