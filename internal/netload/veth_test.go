package netload

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// namespace returns a new one, its loopback up.
func namespace(t *testing.T) *netnsx.NS {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	ip(t, ns, "link set lo up")
	return ns
}

func ip(t *testing.T, ns *netnsx.NS, args string) string {
	t.Helper()
	return command(t, ns, "ip", args)
}

func command(t *testing.T, ns *netnsx.NS, program, args string) string {
	t.Helper()
	var out []byte
	require.NoError(t, ns.Do(func() error {
		var err error
		out, err = exec.CommandContext(t.Context(), program, strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", program, args, err, out)
		}
		return nil
	}))
	return string(out)
}

// packets returns what eth0 has sent and received.
func packets(t *testing.T, ns *netnsx.NS) (n uint64) {
	t.Helper()
	lines := strings.Split(ip(t, ns, "-s link show eth0"), "\n")
	for i, line := range lines {
		if strings.Contains(line, "X:") { // RX: and TX:, the values are below
			v, err := strconv.ParseUint(strings.Fields(lines[i+1])[1], 10, 64)
			require.NoError(t, err)
			n += v
		}
	}
	return n
}

// wire returns two namespaces with eth0 at 10.9.9.1 and fd09::1, and at .2 and ::2.
func wire(t *testing.T) (a, b *netnsx.NS) {
	t.Helper()
	a, b = namespace(t), namespace(t)
	ip(t, a, fmt.Sprintf("link add eth0 type veth peer name eth0 netns /proc/%d/fd/%d", os.Getpid(), b.FD()))
	for ns, host := range map[*netnsx.NS]int{a: 1, b: 2} {
		ip(t, ns, fmt.Sprintf("addr add 10.9.9.%d/24 dev eth0", host))
		ip(t, ns, fmt.Sprintf("addr add fd09::%d/64 dev eth0 nodad", host))
		ip(t, ns, "link set eth0 up")
	}
	return a, b
}

// TestIntegrationVeth runs each kind between two namespaces, where neither
// the test's thread nor the loops' threads are at home.
func TestIntegrationVeth(t *testing.T) {
	a, b := wire(t)
	for _, addr := range []string{"0.0.0.0:6000", "[fd09::1]:6000"} {
		s, err := Listen(t.Context(), netip.MustParseAddrPort(addr), Options{Within: a.Do})
		require.NoError(t, err)
		to := s.Addr()
		if to.Addr().IsUnspecified() {
			to = netip.MustParseAddrPort("10.9.9.1:6000")
		}
		for _, spec := range []Spec{
			{Kind: TCPStream, Size: 16384, Flows: 2},
			{Kind: TCPStream, Size: 16384, Reverse: true},
			{Kind: TCPRR, Size: 1024},
			{Kind: UDPStream, Size: 64, Rate: 5000},
			{Kind: UDPStream, Size: 64, Rate: 5000, Reverse: true, Flows: 2},
			{Kind: UDPStream, Size: 3000, Rate: 5000},
			{Kind: UDPRR, Size: 64},
			{Kind: TCPCRR, Size: 64, Flows: 2},
		} {
			t.Run(fmt.Sprintf("%s/%s/%d/reverse=%t", addr, spec.Kind, spec.Size, spec.Reverse), func(t *testing.T) {
				spec.Count = 200
				before := packets(t, b)
				r, err := Run(t.Context(), to, spec, RunOptions{Within: b.Do})
				require.NoError(t, err)
				checkCounts(t, r)
				assert.Equal(t, uint64(200*max(spec.Flows, 1)), r.Sent)
				if spec.Kind != TCPStream { // a packet of which carries several messages
					assert.Greater(t, packets(t, b)-before, r.Received)
				}
			})
		}
		require.NoError(t, s.Close())
	}
}

// TestIntegrationShapedLink measures a link whose rate is known, by netload
// and by iperf3 in turns. The load of the machine doesn't matter much.
func TestIntegrationShapedLink(t *testing.T) {
	program := iperf3(t)
	a, b := wire(t)
	command(t, b, "tc", "qdisc add dev eth0 root tbf rate 100mbit burst 64kb latency 20ms")
	s, err := Listen(t.Context(), netip.MustParseAddrPort("10.9.9.1:6000"), Options{Within: a.Do})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	var own, others []throughput
	for range 3 {
		others = append(others, iperf(t, program, "10.9.9.1", a.Do, b.Do))
		own = append(own, ownStream(t, s.Addr(), RunOptions{Within: b.Do}))
	}
	rate := func(p throughput) float64 { return p.perSecond }
	ratio := median(own, rate) / median(others, rate)
	t.Logf("netload %.2f MB/s, iperf3 %.2f MB/s, ratio %.3f", median(own, rate)/1e6, median(others, rate)/1e6, ratio)
	assert.InDelta(t, 1, ratio, 0.1)
	assert.Less(t, median(own, rate), 100e6/8*1.05, "the link's rate")
}
