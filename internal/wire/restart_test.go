package wire

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
)

// quick has a heartbeat that notices within a test's patience, and is not
// misled by a slow machine.
func quick(c Config) Config {
	c.Interval, c.Timeout = 50*time.Millisecond, time.Second
	return c
}

// agentOn opens a port again and again and serves sessions, as agentd.Run does,
// until it is killed.
type agentOn struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex // guards what is below
	port *serialGuest
}

func startAgent(t *testing.T, s *serial, cfg Config) *agentOn {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &agentOn{cancel: cancel}
	a.wg.Go(func() {
		for ctx.Err() == nil {
			g, err := s.open()
			if err == nil {
				a.mu.Lock()
				a.port = g
				a.mu.Unlock()
				a.session(ctx, g, cfg)
			}
			<-time.After(time.Millisecond)
		}
	})
	t.Cleanup(a.kill)
	return a
}

func (a *agentOn) session(ctx context.Context, g *serialGuest, cfg Config) {
	sess, err := Guest(ctx, g, cfg)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = sess.Close() })
	defer stop()
	<-sess.Done()
}

// kill closes the port before anything else can be said, as the kernel does.
func (a *agentOn) kill() {
	a.mu.Lock()
	if a.port != nil {
		_ = a.port.Close()
	}
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

func dial(ctx context.Context, t *testing.T, s *serial) *Session {
	t.Helper()
	sess, err := Host(ctx, s.connect(), quick(Config{}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = sess.Close() })
	return sess
}

func TestAgentRestartedUnderAnOpenSocket(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := newSerial()
	s.keep = 1 << 20 // the next agent gets all that is on its way
	first := startAgent(t, s, quick((&echoAgent{version: "first"}).config()))
	sess := dial(ctx, t, s)
	v, err := info(ctx, sess)
	require.NoError(t, err)
	require.Equal(t, "first", v)

	first.kill()
	began := time.Now()
	startAgent(t, s, quick((&echoAgent{version: "second"}).config()))
	await(t, sess.Done(), "the end of the session with the first agent")
	assert.Less(t, time.Since(began), time.Second, "the new agent's RESET was not noticed")
	require.ErrorIs(t, sess.Err(), errProtocol)
	_, err = info(ctx, sess)
	require.Error(t, err)

	v, err = info(ctx, dial(ctx, t, s))
	require.NoError(t, err)
	assert.Equal(t, "second", v)
}

func TestAgentKilled(t *testing.T) {
	for _, tt := range []struct {
		name    string
		half    []byte // what the agent said last
		replace bool
		want    string
	}{
		{"and not replaced", nil, false, "heartbeat: nothing heard for 1s"},
		{"within a frame", []byte{0, muxData, 0, 0, 0, 0, 0, streamToGuest, 0, 0, 1, 0, 1, 2}, false, "heartbeat: nothing heard for 1s"},
		{"within a frame and replaced", []byte{0, muxData, 0, 0, 0, 0, 0, streamToGuest, 0, 0, 1, 0, 1, 2}, true, "heartbeat: nothing heard for 1s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			ctx := testContext(t)
			s := newSerial()
			agent := startAgent(t, s, quick((&echoAgent{version: "first"}).config()))
			sess := dial(ctx, t, s)
			agent.kill()
			s.inject(&s.toHost, tt.half)
			if tt.replace {
				startAgent(t, s, quick((&echoAgent{version: "second"}).config()))
			}
			await(t, sess.Done(), "the end of the session")
			require.EqualError(t, sess.Err(), tt.want)
			if tt.replace {
				v, err := info(ctx, dial(ctx, t, s))
				require.NoError(t, err)
				assert.Equal(t, "second", v)
			}
		})
	}
}

// The daemon is killed within a call and comes back before the guest notices.
func TestHostReconnectsWithoutEOF(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := newSerial()
	entered, left := make(chan struct{}), make(chan struct{})
	agent := &echoAgent{version: "v1", list: func(ctx context.Context) (*agentv1.ListResponse, error) {
		close(entered)
		<-ctx.Done()
		close(left)
		return nil, ctx.Err()
	}}
	startAgent(t, s, quick(agent.config()))
	c := s.connect()
	old, err := Host(ctx, c, quick(Config{}))
	require.NoError(t, err)
	call := make(chan error, 1)
	go func() {
		_, err := agentv1.NewAgentClient(old.Client()).List(ctx, &agentv1.ListRequest{})
		call <- err
	}()
	await(t, entered, "the call")

	next := s.connect()           // waits in the backlog, so
	require.NoError(t, c.Close()) // the guest never sees a port without a host
	sess, err := Host(ctx, next, quick(Config{}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = sess.Close() })
	require.Error(t, await(t, call, "the broken call"))
	await(t, left, "the end of the call in the guest")
	v, err := info(ctx, sess)
	require.NoError(t, err)
	assert.Equal(t, "v1", v)
}

func TestBothRestartedAtOnce(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := newSerial()
	s.keep = 100 // the end of the old session's frames
	first := startAgent(t, s, quick((&echoAgent{version: "first"}).config()))
	c := s.connect()
	old, err := Host(ctx, c, quick(Config{}))
	require.NoError(t, err)
	first.kill()
	_, _ = info(contextOf(t, 10*time.Millisecond), old) // on its way to nobody
	require.NoError(t, c.Close())
	startAgent(t, s, quick((&echoAgent{version: "second"}).config()))
	v, err := info(ctx, dial(ctx, t, s))
	require.NoError(t, err)
	assert.Equal(t, "second", v)
	await(t, old.Done(), "the end of the old session")
}

// A second client waits in the chardev's backlog, and all that it has written
// reaches the guest once the first one leaves.
func TestSecondClientInTheBacklog(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := newSerial()
	startAgent(t, s, quick((&echoAgent{version: "v1"}).config()))
	first := dial(ctx, t, s)
	_, err := Host(contextOf(t, 700*time.Millisecond), s.connect(), quick(Config{}))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.True(t, first.Alive(), first.Err())

	second := make(chan *Session, 1)
	go func() {
		sess, err := Host(ctx, s.connect(), quick(Config{}))
		assert.NoError(t, err)
		second <- sess
	}()
	_, err = info(ctx, first)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	sess := await(t, second, "the second client's session")
	require.NotNil(t, sess)
	t.Cleanup(func() { _ = sess.Close() })
	_, err = info(ctx, sess)
	require.NoError(t, err)
}

func contextOf(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestGuestNoticesASilentHost(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	a, b := socketPair(t)
	hostCfg := Config{Interval: time.Hour, Timeout: time.Hour}
	_, guest := openBoth(ctx, t, a, b, hostCfg, quick(Config{}))
	await(t, guest.Done(), "the end of the session")
	require.EqualError(t, guest.Err(), "heartbeat: nothing heard for 1s")
}

// A guest with one busy vCPU under emulation answers late, not never.
func TestDefaultsBearABusyGuest(t *testing.T) {
	c := Config{}.withDefaults()
	assert.GreaterOrEqual(t, c.Timeout, 10*c.Interval)
	assert.Greater(t, muxWriteTimeout, 2*c.Timeout, "the mux would end the session first")
	assert.Less(t, readyTimeout, c.Handshake/2, "a handshake has time for a second try")
}

func TestHeartbeatKeepsAnIdleSession(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	a, b := socketPair(t)
	cfg := Config{Interval: 10 * time.Millisecond, Timeout: 400 * time.Millisecond}
	host, guest := openBoth(ctx, t, a, b, cfg, cfg)
	<-time.After(time.Second)
	require.NoError(t, host.Err())
	require.NoError(t, guest.Err())
}
