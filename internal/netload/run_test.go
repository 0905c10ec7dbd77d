package netload

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func listen(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func TestKindsByTime(t *testing.T) {
	s := listen(t, Options{})
	for _, spec := range []Spec{
		{Kind: TCPStream, Size: 16384},
		{Kind: TCPStream, Size: 64, Flows: 3},
		{Kind: TCPStream, Size: 16384, Reverse: true, Flows: 2},
		{Kind: TCPRR, Size: 1024},
		{Kind: TCPRR, Size: 1 << 20, Flows: 2},
		{Kind: UDPStream, Size: 64},
		{Kind: UDPStream, Size: 1400, Reverse: true, Flows: 2},
		{Kind: UDPRR, Size: 64, Flows: 2},
		{Kind: TCPCRR, Size: 16},
		{Kind: TCPCRR, Size: 100000, Flows: 2},
	} {
		b, err := json.Marshal(spec)
		require.NoError(t, err)
		t.Run(string(b), func(t *testing.T) {
			spec.Duration, spec.WarmUp = 200*time.Millisecond, 50*time.Millisecond
			r, err := Run(t.Context(), s.Addr(), spec, RunOptions{})
			require.NoError(t, err)
			checkCounts(t, r)
			assert.InDelta(t, 0.6, r.Elapsed.Seconds(), 0.45, "200 ms or a little more")
			t.Logf("%.0f MB/s %.0f msg/s sent %d received %d late %d lost %d p50 %s p99 %s", r.BytesPerSecond()/1e6,
				r.MessagesPerSecond(), r.Sent, r.Received, r.Late, r.Lost, r.Percentile(50), r.Percentile(99))
		})
	}
}

// checkCounts checks what is so in every run.
func checkCounts(t *testing.T, r Result) {
	t.Helper()
	assert.NotZero(t, r.Received)
	if r.Kind == TCPStream { // Bytes of a part of a message count
		assert.InDelta(t, r.Sent, r.Received+r.Late, 1)
		assert.Equal(t, r.Received, r.Bytes/uint64(r.Size))
	} else {
		assert.Equal(t, r.Sent, r.Received+r.Late+r.Lost)
		assert.Equal(t, r.Received*uint64(r.Size), r.Bytes)
	}
	if r.Kind != UDPStream {
		assert.Zero(t, r.Lost)
	}
	if r.Kind.stream() {
		assert.Nil(t, r.Latency)
		assert.Zero(t, r.Percentile(50))
		return
	}
	assert.InDelta(t, r.Received, r.Latency.Count(), float64(r.Flows))
	assert.Positive(t, r.Percentile(50))
	assert.LessOrEqual(t, r.Percentile(50), r.Percentile(99))
}

func TestKindsByCount(t *testing.T) {
	s := listen(t, Options{})
	for _, spec := range []Spec{
		{Kind: TCPStream, Size: 1000},
		{Kind: TCPStream, Size: 16384, Reverse: true, Flows: 3},
		{Kind: TCPRR, Size: 1024, Flows: 2},
		{Kind: UDPStream, Size: 64, Rate: 5000},
		{Kind: UDPStream, Size: 64, Rate: 5000, Reverse: true},
		{Kind: UDPRR, Size: 64},
		{Kind: TCPCRR, Size: 64, Flows: 2},
	} {
		b, err := json.Marshal(spec)
		require.NoError(t, err)
		t.Run(string(b), func(t *testing.T) {
			spec.Duration, spec.WarmUp, spec.Count = 20*time.Second, 20*time.Millisecond, 500
			r, err := Run(t.Context(), s.Addr(), spec, RunOptions{})
			require.NoError(t, err)
			want := uint64(500 * max(spec.Flows, 1))
			assert.Equal(t, want, r.Sent)
			assert.Equal(t, want, r.Received+r.Lost)
			assert.Zero(t, r.Late)
			if spec.Kind == TCPStream {
				assert.Equal(t, want*uint64(spec.Size), r.Bytes)
			}
			checkCounts(t, r)
		})
	}
}

func TestRunOfTooManyMessages(t *testing.T) {
	s := listen(t, Options{})
	for _, spec := range []Spec{
		{Kind: TCPRR, Size: 64},
		{Kind: UDPStream, Size: 64, Rate: 100},
		{Kind: TCPStream, Size: 1 << 20, Reverse: true},
	} {
		spec.Count, spec.Duration = 1e9, 50*time.Millisecond
		_, err := Run(t.Context(), s.Addr(), spec, RunOptions{})
		require.ErrorContains(t, err, "1000000000 messages a flow took longer than 50ms", spec.Kind)
	}
	_, err := Run(t.Context(), s.Addr(), Spec{Kind: TCPRR, Size: 1, Count: 10}, RunOptions{})
	assert.NoError(t, err, "the server is as before")
}

func TestPacedDatagrams(t *testing.T) {
	s := listen(t, Options{})
	r, err := Run(t.Context(), s.Addr(), Spec{Kind: UDPStream, Size: 64, Rate: 1000, Duration: 300 * time.Millisecond, Flows: 2}, RunOptions{})
	require.NoError(t, err)
	assert.InDelta(t, 1900, r.SentPerSecond(), 500)
	r, err = Run(t.Context(), s.Addr(), Spec{Kind: UDPStream, Size: 64, Rate: 0.1, Duration: 100 * time.Millisecond}, RunOptions{})
	require.NoError(t, err, "a long pause ends with the phase")
	assert.Equal(t, uint64(1), r.Sent)
	assert.Equal(t, uint64(1), r.Received+r.Late)
}

func TestIPv6(t *testing.T) {
	s, err := Listen(t.Context(), netip.MustParseAddrPort("[::1]:0"), Options{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	for _, kind := range []Kind{TCPStream, TCPRR, UDPStream, UDPRR, TCPCRR} {
		_, err := Run(t.Context(), s.Addr(), Spec{Kind: kind, Size: 64, Count: 10}, RunOptions{})
		assert.NoError(t, err, kind)
	}
}

func TestAllAddresses(t *testing.T) {
	for _, all := range []string{"0.0.0.0:0", "[::]:0"} {
		s, err := Listen(t.Context(), netip.MustParseAddrPort(all), Options{})
		require.NoError(t, err)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Addr().Port())
		for _, kind := range []Kind{TCPRR, UDPRR} {
			_, err := Run(t.Context(), to, Spec{Kind: kind, Size: 64, Count: 10}, RunOptions{})
			require.NoError(t, err, "%s on %s", kind, all)
		}
		assert.NoError(t, s.Close())
	}
}

func TestRunErrors(t *testing.T) {
	s := listen(t, Options{MaxDuration: time.Second})
	_, err := Run(t.Context(), s.Addr(), Spec{Kind: TCPRR}, RunOptions{})
	require.ErrorIs(t, err, ErrSpec)
	_, err = Run(t.Context(), s.Addr(), Spec{Kind: TCPRR, Size: 1, Duration: time.Minute}, RunOptions{})
	require.ErrorContains(t, err, "this server takes up to 1s")
	_, err = Run(t.Context(), netip.AddrPort{}, Spec{Kind: TCPRR, Size: 1}, RunOptions{})
	require.ErrorContains(t, err, "no address")
	_, err = Run(t.Context(), netip.MustParseAddrPort("[fe80::1%eth0]:1"), Spec{Kind: TCPRR, Size: 1}, RunOptions{})
	require.ErrorContains(t, err, "give the interface's index")
	require.NoError(t, s.Close())
	_, err = Run(t.Context(), s.Addr(), Spec{Kind: TCPRR, Size: 1}, RunOptions{})
	assert.ErrorContains(t, err, "connect to the netload server: connection refused")
}

func TestCloseEndsRuns(t *testing.T) {
	s := listen(t, Options{})
	for _, kind := range []Kind{TCPStream, UDPRR, TCPCRR} {
		go func() {
			_, _ = Run(t.Context(), s.Addr(), Spec{Kind: kind, Size: 64, Duration: time.Minute}, RunOptions{})
		}()
	}
	require.Eventually(t, func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(s.runs) == 3
	}, 10*time.Second, time.Millisecond)
	begin := time.Now()
	require.NoError(t, s.Close())
	assert.Less(t, time.Since(begin), 5*time.Second)
	assert.Empty(t, s.runs)
}

func TestRunCancelled(t *testing.T) {
	s := listen(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Run(ctx, s.Addr(), Spec{Kind: TCPRR, Size: 64, Duration: time.Minute}, RunOptions{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(begin), 5*time.Second)
}
