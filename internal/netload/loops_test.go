package netload

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestNoAllocation runs each kind with few and with many messages: what more
// messages allocate, at both ends, must not grow with them.
func TestNoAllocation(t *testing.T) {
	s := listen(t, Options{})
	for _, kind := range []Kind{TCPStream, TCPRR, UDPStream, UDPRR, TCPCRR} {
		t.Run(string(kind), func(t *testing.T) {
			few, many := allocations(t, s, kind, 500), allocations(t, s, kind, 3500)
			assert.Less(t, many, few+300, "for 3000 messages more")
		})
	}
}

func allocations(t *testing.T, s *Server, kind Kind, count int) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Run(t.Context(), s.Addr(), Spec{Kind: kind, Size: 64, Count: count}, RunOptions{})
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// pair returns a party of one flow with active loops and its peer's socket.
func pair(t *testing.T, spec Spec) (*party, int) {
	t.Helper()
	kind := unix.SOCK_STREAM
	if spec.Kind.udp() {
		kind = unix.SOCK_DGRAM
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	p := newParty(spec.withDefaults(), 7, nil)
	p.load()
	require.NoError(t, timeout(20*time.Millisecond)(fds[0]))
	require.True(t, p.attach(0, fds[0]))
	require.False(t, p.attach(0, fds[0]), "it has a socket")
	require.False(t, p.attach(1, fds[0]), "there is no such flow")
	t.Cleanup(func() {
		p.close()
		assert.False(t, p.attach(0, fds[1]), "it is closed")
		assert.NoError(t, unix.Close(fds[1]))
	})
	return p, fds[1]
}

func TestLostAnswers(t *testing.T) {
	const wait = 300 * time.Millisecond // on a busy machine, an answer may be late too
	p, peer := pair(t, Spec{Kind: UDPRR, Size: 64})
	require.NoError(t, timeout(wait)(p.flows[0].fd))
	go func() { // answers every other message, and the last one twice
		b := make([]byte, 64)
		for n := 0; readFull(peer, b) == nil; n++ {
			if n%2 == 1 {
				_ = writeDatagram(peer, b)
				_ = writeDatagram(peer, b)
			}
		}
	}()
	p.begin(2)
	p.launch(10)
	require.NoError(t, p.ended(t.Context()))
	f := p.flows[0]
	assert.Equal(t, uint64(10), f.sent.Load())
	assert.Equal(t, uint64(5), f.received.Load())
	assert.Equal(t, uint64(5), f.lost)
	assert.Equal(t, uint64(5), f.latency.Count())
	assert.Less(t, f.latency.Percentile(100), wait, "a latency begins after a loss")
}

func TestBrokenFlow(t *testing.T) {
	p, peer := pair(t, Spec{Kind: TCPRR, Size: 64})
	p.begin(1)
	require.NoError(t, unix.Shutdown(peer, unix.SHUT_RDWR))
	p.launch(0)
	require.ErrorContains(t, p.ended(t.Context()), "send on flow 0")
	assert.ErrorContains(t, p.drain(t.Context(), []uint64{1}), "send on flow 0")
}

func TestSilentPeer(t *testing.T) {
	p, _ := pair(t, Spec{Kind: TCPRR, Size: 64})
	p.begin(1)
	p.launch(0)
	assert.ErrorIs(t, p.ended(t.Context()), os.ErrDeadlineExceeded)
}

func TestDrain(t *testing.T) {
	p, peer := pair(t, Spec{Kind: TCPStream, Size: 64, Reverse: true})
	require.NoError(t, timeout(0)(p.flows[0].fd))
	for phase := range 3 {
		p.begin(uint8(phase + 1))
		for range 10 {
			require.NoError(t, writeAll(peer, make([]byte, 100)))
		}
		require.NoError(t, p.drain(t.Context(), []uint64{1000}))
		assert.Equal(t, uint64(1000), p.received())
	}
	assert.ErrorIs(t, p.drain(t.Context(), nil), errRequest)
}

func TestDrainWaitsForAStarvedReceiver(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { assert.NoError(t, unix.Close(fds[1])) }()
	p := newParty(Spec{Kind: UDPStream, Size: 64, Flows: 1}, 7, nil) // nothing receives
	defer p.close()
	require.True(t, p.attach(0, fds[0]))
	p.begin(1)
	require.NoError(t, p.drain(t.Context(), []uint64{2}), "all is lost")
	require.NoError(t, writeDatagram(fds[1], make([]byte, 64)))
	ctx, cancel := context.WithTimeout(t.Context(), 3*quiet)
	defer cancel()
	assert.ErrorIs(t, p.drain(ctx, []uint64{2}), context.DeadlineExceeded)
}

func TestNothingStays(t *testing.T) {
	round := func() {
		s := listen(t, Options{})
		for _, kind := range []Kind{TCPStream, TCPRR, UDPStream, UDPRR, TCPCRR} {
			_, err := Run(t.Context(), s.Addr(), Spec{Kind: kind, Size: 64, Count: 5, Flows: 3}, RunOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
		require.NoError(t, s.Close(), "again")
	}
	round()
	fds, routines := openFiles(t), runtime.NumGoroutine()
	for range 3 {
		round()
	}
	assert.Equal(t, fds, openFiles(t))
	// Eventually has one of its own.
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= routines+1 }, 5*time.Second, time.Millisecond)
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}
