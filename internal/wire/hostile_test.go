package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
)

func muxFrame(typ byte, flags uint16, id, length uint32) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, typ}, flags)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, id), length)
}

func rpcFrame(length, id uint32, typ, flags byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	return append(binary.BigEndian.AppendUint32(b, id), typ, flags)
}

// withBody returns a call with that body, in a frame of the mux.
func withBody(b []byte) []byte {
	size := uint32(len(b))
	return append(muxFrame(muxData, 0, streamToHost, rpcHeaderSize+size), append(rpcFrame(size, 1, rpcRequest, 0), b...)...)
}

// rawGuest shakes hands honestly and returns the connection behind it.
func rawGuest(ctx context.Context, t *testing.T, cfg Config) (host *Session, guest net.Conn) {
	t.Helper()
	a, b := socketPair(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := guestHandshake(ctx, bufio.NewReader(b), b, slog.New(slog.DiscardHandler))
		if err == nil {
			// The guest's stream, and acceptance of both of the host's.
			_, err = b.Write(append(muxFrame(muxWindowUpdate, muxSYN, streamToHost, 0),
				append(muxFrame(muxWindowUpdate, muxACK, streamBeat, 0), muxFrame(muxWindowUpdate, muxACK, streamToGuest, 0)...)...))
		}
		assert.NoError(t, err)
	})
	host, err := Host(ctx, a, cfg)
	wg.Wait()
	require.NoError(t, err)
	t.Cleanup(func() { _ = host.Close() })
	return host, b
}

func TestHostileMux(t *testing.T) {
	for _, tt := range []struct {
		name string
		send []byte
		want string
	}{
		{"ping", muxFrame(2, muxSYN, 0, 1), "mux frame of type 2: protocol violation"},
		{"unknown type", muxFrame(9, 0, 1, 1), "mux frame of type 9: protocol violation"},
		{"other version", []byte("\x01...........")[:12], "mux version 1, the other side may have been restarted: protocol violation"},
		{"a frame of a handshake", frame{kind: kindReset}.encode(), "mux version 245, the other side may have been restarted: protocol violation"},
		{"one more stream", muxFrame(muxWindowUpdate, muxSYN, 4, 0), "mux stream 4 opened: protocol violation"},
		{"the same stream again", muxFrame(muxData, muxSYN, streamToHost, 0), "mux stream 2 opened: protocol violation"},
		{"the host's stream", muxFrame(muxData, muxSYN, streamBeat, 0), "mux stream 1 opened: protocol violation"},
		{"unknown stream", muxFrame(muxData, 0, 7, 1), "mux frame for stream 7, which is not open: protocol violation"},
		{"long frame", muxFrame(muxData, 0, streamToHost, muxWindow+1), "mux frame of 262145 bytes, at most 262144 are allowed: protocol violation"},
		{"window exceeded", append(muxFrame(muxData, 0, streamBeat, muxWindow), make([]byte, muxWindow)...), ""},
		{"reset", muxFrame(muxWindowUpdate, muxRST, streamToHost, 0), "closed by the other side"},
		{"go away", muxFrame(muxGoAway, 0, 0, 0), "closed by the other side"},
		{"unasked pong", append(muxFrame(muxData, 0, streamBeat, 3*frameSize), pongs(3)...), "heartbeat: PONG of another session: protocol violation"},
		{"long message", append(muxFrame(muxData, 0, streamToHost, 10), rpcFrame(maxMessage+1, 1, rpcRequest, 0)...), "message of 262145 bytes, at most 262144 are allowed: protocol violation"},
		{"answer to nothing", append(muxFrame(muxData, 0, streamToGuest, 10), rpcFrame(0, 1, rpcResponse, 0)...), "message of type 2 for call 1, which is not under way: protocol violation"},
		{"stream message", append(muxFrame(muxData, 0, streamToHost, 10), rpcFrame(0, 1, 3, 0)...), "message of type 3 with number 1 is no call: protocol violation"},
		{"even number", append(muxFrame(muxData, 0, streamToHost, 10), rpcFrame(0, 2, rpcRequest, 0)...), "message of type 1 with number 2 is no call: protocol violation"},
		{"flags", append(muxFrame(muxData, 0, streamToHost, 10), rpcFrame(0, 1, rpcRequest, 1)...), "message with flags 0x1: protocol violation"},
		{"no message", append(muxFrame(muxData, 0, streamToHost, 11), append(rpcFrame(1, 1, rpcRequest, 0), 0x0a)...), "message can't be read: unexpected EOF: protocol violation"},
		{"metadata", withBody(bytes.Repeat([]byte{0x2a, 0}, maxEnvelope+1)), "message has more than 64 fields: protocol violation"},
		{"payload", withBody(append([]byte{0x1a, 0x82, 0x40}, bytes.Repeat([]byte{0x0a, 0}, maxFields+1)...)), "message has more than 4096 fields: protocol violation"},
		{"number again", append(muxFrame(muxData, 0, streamToHost, 20), append(rpcFrame(0, 3, rpcRequest, 0), rpcFrame(0, 3, rpcRequest, 0)...)...), "call 3 after call 3: protocol violation"},
		{"end", nil, "closed by the other side"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			host, guest := rawGuest(testContext(t), t, Config{Timeout: time.Minute})
			_, err := guest.Write(tt.send)
			require.NoError(t, err)
			if tt.send == nil {
				require.NoError(t, guest.Close())
			}
			await(t, host.Done(), "the end of the session")
			if tt.want != "" {
				require.EqualError(t, host.Err(), tt.want)
			}
		})
	}
}

func pongs(n int) (b []byte) {
	for range n {
		b = append(b, frame{version: Version, kind: kindPong}.encode()...)
	}
	return b
}

func TestHostilePongs(t *testing.T) {
	noLeaks(t)
	host, guest := rawGuest(testContext(t), t, Config{Interval: time.Minute, Timeout: time.Minute})
	pong := frame{version: Version, kind: kindPong, nonce: host.Nonce()}.encode()
	_, err := guest.Write(append(muxFrame(muxData, 0, streamBeat, 2*frameSize), append(pong, pong...)...))
	require.NoError(t, err)
	await(t, host.Done(), "the end of the session")
	require.EqualError(t, host.Err(), "heartbeat: PONG without PING: protocol violation")
}

// A guest that answers neither heartbeats nor reads is gone after the timeout,
// whatever else it sends.
func TestHostileGuestTrickles(t *testing.T) {
	noLeaks(t)
	host, guest := rawGuest(testContext(t), t, Config{Timeout: 300 * time.Millisecond})
	_, err := guest.Write(muxFrame(muxData, 0, streamToHost, muxWindow))
	require.NoError(t, err)
	for host.Alive() {
		if _, err := guest.Write([]byte{0}); err != nil {
			break
		}
		<-time.After(time.Millisecond)
	}
	await(t, host.Done(), "the end of the session")
	require.EqualError(t, host.Err(), "heartbeat: nothing heard for 300ms")
}

// A guest that doesn't read makes neither a call nor the end hang.
func TestHostileGuestDoesNotRead(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	host, _ := rawGuest(ctx, t, Config{Timeout: time.Minute, MaxCalls: 4})
	client := agentv1.NewAgentClient(host.Client())
	big := &agentv1.PrepareRequest{Netns: string(make([]byte, 200<<10))}
	for range 4 {
		_, err := client.Prepare(contextOf(t, 20*time.Millisecond), big)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	_, err := client.Prepare(contextOf(t, 20*time.Millisecond), big)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	await(t, host.Done(), "the end of the session")
	require.ErrorIs(t, host.Err(), errBusy)
	require.EqualError(t, host.Err(), "4 calls: too many calls without an answer")
}

// However many calls a guest makes, few are served at once, and the memory they
// take is bounded.
func TestHostileGuestCalls(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	var now, most atomic.Int32
	open := make(chan struct{})
	sink := &sinkHost{report: func(ctx context.Context, _ *agentv1.ReportRequest) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		select {
		case <-open:
		case <-ctx.Done():
		}
		return nil
	}}
	cfg := sink.config()
	cfg.MaxServed = 5
	a, b := socketPair(t)
	host, guest := openBoth(ctx, t, a, b, cfg, Config{MaxCalls: 1000})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	client := agentv1.NewHostClient(guest.Client())
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			_, err := client.Report(ctx, &agentv1.ReportRequest{Mac: "02:00:00:00:00:01"})
			assert.NoError(t, err)
		})
	}
	for most.Load() < 5 {
		<-time.After(time.Millisecond)
	}
	<-time.After(100 * time.Millisecond)
	assert.EqualValues(t, 5, now.Load())
	runtime.ReadMemStats(&after)
	assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(32<<20))
	close(open)
	wg.Wait()
	assert.EqualValues(t, 5, most.Load())
	require.NoError(t, host.Err())
}

// An answer of empty submessages takes far more memory than bytes.
func TestHostileAnswer(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	many := maxFields
	agent := &echoAgent{list: func(context.Context) (*agentv1.ListResponse, error) {
		resp := &agentv1.ListResponse{Nics: make([]*agentv1.NIC, many)}
		for i := range resp.Nics {
			resp.Nics[i] = &agentv1.NIC{}
		}
		return resp, nil
	}}
	a, b := socketPair(t)
	host, _ := openBoth(ctx, t, a, b, Config{}, agent.config())
	client := agentv1.NewAgentClient(host.Client())
	_, err := client.List(ctx, &agentv1.ListRequest{})
	require.NoError(t, err)
	many++
	_, err = client.List(ctx, &agentv1.ListRequest{})
	require.EqualError(t, err, "message has more than 4096 fields: protocol violation")
}

func TestLongMessagesStayHome(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	agent := &echoAgent{version: "v1", list: func(context.Context) (*agentv1.ListResponse, error) {
		return &agentv1.ListResponse{Nics: []*agentv1.NIC{{Netns: string(make([]byte, maxMessage))}}}, nil
	}}
	a, b := socketPair(t)
	host, _ := openBoth(ctx, t, a, b, Config{}, agent.config())
	client := agentv1.NewAgentClient(host.Client())
	_, err := client.List(ctx, &agentv1.ListRequest{})
	require.ErrorContains(t, err, "at most 258048 are allowed")
	_, err = client.Prepare(ctx, &agentv1.PrepareRequest{Netns: string(make([]byte, maxMessage))})
	require.ErrorContains(t, err, "at most 258048 are allowed")
	v, err := info(ctx, host)
	require.NoError(t, err, "the session ended")
	assert.Equal(t, "v1", v)
}

// An answer to a call that was given up goes nowhere, and later ones work.
func TestLateAnswer(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	open := make(chan struct{})
	agent := &echoAgent{version: "v1", list: func(context.Context) (*agentv1.ListResponse, error) {
		<-open
		return &agentv1.ListResponse{}, nil
	}}
	a, b := socketPair(t)
	host, _ := openBoth(ctx, t, a, b, Config{MaxCalls: 1}, agent.config())
	client := agentv1.NewAgentClient(host.Client())
	given, giveUp := context.WithCancel(ctx)
	called := make(chan error, 1)
	go func() {
		_, err := client.List(given, &agentv1.ListRequest{})
		called <- err
	}()
	giveUp()
	require.ErrorIs(t, await(t, called, "the call"), context.Canceled)
	close(open)
	v, err := info(ctx, host) // needs the only slot
	require.NoError(t, err)
	assert.Equal(t, "v1", v)
}

func TestPeerGetsAnEarlierDeadline(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	left := make(chan time.Duration, 1)
	agent := &echoAgent{list: func(ctx context.Context) (*agentv1.ListResponse, error) {
		dl, ok := ctx.Deadline()
		assert.True(t, ok)
		left <- time.Until(dl)
		<-ctx.Done()
		return nil, io.ErrNoProgress // the reason that only the agent knows
	}}
	a, b := socketPair(t)
	host, _ := openBoth(ctx, t, a, b, Config{}, agent.config())
	_, err := agentv1.NewAgentClient(host.Client()).List(contextOf(t, 2*time.Second), &agentv1.ListRequest{})
	require.ErrorContains(t, err, io.ErrNoProgress.Error())
	assert.Less(t, await(t, left, "the call"), 1801*time.Millisecond)
}

// pieces is a reader of b that gives n bytes at a time.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}

// sink is a connection whose input is given and whose output is dropped.
type sink struct {
	net.Conn
	in io.Reader
}

func (s *sink) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) Close() error                { return nil }

// FuzzMux feeds a whole mux, with its check before it: it must not panic, hang,
// or hold more than its windows.
func FuzzMux(f *testing.F) {
	f.Add([]byte{}, uint8(1), true)
	f.Add(append(muxFrame(muxData, muxSYN, streamToHost, 4), "\x00\x00\x00\x00"...), uint8(3), true)
	f.Add(muxFrame(muxWindowUpdate, muxSYN|muxACK, streamBeat, 1<<31), uint8(200), false)
	f.Add(append(muxFrame(muxWindowUpdate, muxSYN, streamBeat, 0), muxFrame(muxData, 0, streamBeat, 1<<18)...), uint8(12), false)
	f.Fuzz(func(t *testing.T, in []byte, step uint8, host bool) {
		role := yamux.Server
		if host {
			role = yamux.Client
		}
		conn := &muxConn{r: bufio.NewReader(&pieces{in, int(step) + 1}), conn: &sink{in: nil}, in: newMuxCheck(host)}
		m, err := role(conn, muxConfig())
		require.NoError(t, err)
		await(t, m.CloseChan(), "the end of the mux")
		require.NoError(t, m.Close())
		assert.LessOrEqual(t, m.NumStreams(), 3)
	})
}

// FuzzGuard feeds the guard of a server or of a client with two calls under way.
func FuzzGuard(f *testing.F) {
	f.Add(append(rpcFrame(3, 1, rpcRequest, 0), "abc"...), uint8(1), true)
	f.Add(append(rpcFrame(4, 1, rpcRequest, 0), 0x1a, 2, 0x0a, 0), uint8(1), true)
	f.Add(append(rpcFrame(0, 1, rpcResponse, 0), rpcFrame(2, 3, rpcResponse, 0)...), uint8(9), false)
	f.Add(rpcFrame(1<<31, 1, rpcRequest, 0), uint8(9), true)
	f.Fuzz(func(t *testing.T, in []byte, step uint8, server bool) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a server's third call would wait for ever
		var failed error
		g := newGuard(ctx, &sink{in: &pieces{in, int(step) + 1}}, server, 2, func(err error) { failed = err }, func() {})
		if !server {
			_, _ = g.Write(append(rpcFrame(0, 1, rpcRequest, 0), rpcFrame(0, 3, rpcRequest, 0)...))
		}
		out, err := io.ReadAll(g)
		require.NoError(t, err)
		assert.True(t, len(out) <= len(in) && string(in[:len(out)]) == string(out), "the guard changed bytes")
		assert.LessOrEqual(t, len(g.open), 2)
		for rest := out; len(rest) >= rpcHeaderSize; {
			n := be32(rest)
			require.LessOrEqual(t, n, uint32(maxMessage))
			rest = rest[min(len(rest), rpcHeaderSize+int(n)):]
		}
		if failed == nil && !server {
			whole := len(in) >= rpcHeaderSize && len(in)-rpcHeaderSize >= int(be32(in))
			assert.Equal(t, whole, len(out) > 0)
		}
	})
}

func FuzzCheckFields(f *testing.F) {
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte{0x0a})
	f.Fuzz(func(_ *testing.T, b []byte) { _ = checkFields(b) })
}

func FuzzParseChannel(f *testing.F) {
	for _, s := range []string{"/run/a.sock", "unix:/x", "vsock:3:1024", "vsock:2:1", "vsock:", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseChannel(s)
		if err != nil {
			return
		}
		again, err := ParseChannel(c.String())
		require.NoError(t, err)
		assert.Equal(t, c, again)
	})
}
