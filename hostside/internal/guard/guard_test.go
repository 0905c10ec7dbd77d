package guard_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

func openGuard(tb testing.TB, ns *netnstest.NS) *guard.Guard {
	tb.Helper()
	var g *guard.Guard
	ns.In(func() (err error) {
		g, err = guard.Open(discard())
		return err
	})
	tb.Cleanup(func() { require.NoError(tb, g.Close()) })
	return g
}

func TestIntegrationTapWithoutLeasesSendsNothing(t *testing.T) {
	s := newSegment(t)
	c := s.pod(vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0x0c})
	frame := frametest.Ether(c.mac, frametest.Broadcast, pIP4, frametest.IP4("10.9.0.4", bIP4, pUDP, frametest.UDP(1, 2)))
	c.send(t, frame)
	neighbour, host := s.passes(t, frametest.Ether(s.a.mac, s.b.mac, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))))
	assert.True(t, neighbour)
	assert.False(t, host)
	counters, err := s.g.Counters(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, counters[guard.ReasonMAC].Packets)
}

func TestIntegrationChangeOfLease(t *testing.T) {
	s := newSegment(t)
	frame := func(ip string) []byte {
		return frametest.Ether(s.a.mac, s.b.mac, pIP4, frametest.IP4(ip, bIP4, pUDP, frametest.UDP(1, 2)))
	}
	got, _ := s.passes(t, frame("10.9.0.4"))
	require.False(t, got)

	port := guard.Port{Tap: s.a.id.TapName(), MAC: s.a.mac, Addresses: []netip.Addr{netip.MustParseAddr(aIP4), netip.MustParseAddr("10.9.0.4")}}
	require.NoError(t, s.g.SetPort(t.Context(), port))
	got, _ = s.passes(t, frame("10.9.0.4"))
	assert.True(t, got, "a new lease is in force")

	port.Addresses = port.Addresses[:1]
	require.NoError(t, s.g.SetPort(t.Context(), port))
	got, _ = s.passes(t, frame("10.9.0.4"))
	assert.False(t, got, "a lease that ended is not")
	got, _ = s.passes(t, frame(aIP4))
	assert.True(t, got, "the other one still is")
}

// A bridge hands frames for its group addresses to the host without asking the
// bridge hook, with the tap as their interface.
func TestIntegrationGroupAddressesDoNotReachTheHost(t *testing.T) {
	s := newSegment(t)
	group := vnic.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	s.ns.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
	var fd int
	s.ns.In(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 7777})
	})
	socket := os.NewFile(uintptr(fd), "udp")
	defer func() { require.NoError(t, socket.Close()) }()

	for _, src := range []string{aIP4, "192.0.2.7"} {
		s.passes(t, frametest.Ether(s.a.mac, group, pIP4, frametest.IP4(src, hostIP4, pUDP, frametest.UDP(1, 7777))))
	}
	counters, err := s.g.Counters(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 2, counters[guard.ReasonStray].Packets)

	honest := frametest.Ether(s.a.mac, s.br.MAC, pIP4, frametest.IP4(aIP4, hostIP4, pUDP, frametest.UDP(9, 7777)))
	s.passes(t, honest)
	buf := make([]byte, 64)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	assert.Equal(t, 9, from.(*unix.SockaddrInet4).Port, "the honest one is the first to arrive")
}

// A forged source must not make the bridge send the victim's frames to the forger.
func TestIntegrationForgedSourceIsNotLearned(t *testing.T) {
	s := newSegment(t)
	group := vnic.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	s.passes(t, frametest.Ether(s.b.mac, group, 0x88cc, make([]byte, 46)))
	s.passes(t, frametest.Ether(s.b.mac, frametest.Broadcast, pIP4, frametest.IP4(bIP4, aIP4, pUDP, frametest.UDP(1, 2))))
	fdb := s.ns.Run("bridge", "fdb", "show", "br", "br")
	assert.Contains(t, fdb, fmt.Sprintf("%s dev %s master br static", s.b.mac, s.b.id.TapName()))
	assert.NotContains(t, fdb, fmt.Sprintf("%s dev %s", s.b.mac, s.a.id.TapName()))
	assert.NotContains(t, s.ns.Run("ip", "neigh"), bIP4, "the host learned nothing either")
}

func TestIntegrationRestartKeepsPortsAndCounters(t *testing.T) {
	s := newSegment(t)
	s.passes(t, frametest.Ether(s.b.mac, frametest.Broadcast, pARP, frametest.ARP(1, s.a.mac, aIP4, bIP4)))
	before := s.ns.Run("nft", "list", "ruleset")

	again := openGuard(t, s.ns)
	assert.Equal(t, s.g.Ports(), again.Ports())
	assert.Equal(t, before, s.ns.Run("nft", "list", "ruleset"), "the tables were put up again, counters included")
}

// An earlier version had no MAC in the keys of the sets of addresses. After an upgrade
// nothing of what pods may send is forgotten.
func TestIntegrationUpgradeKeepsPorts(t *testing.T) {
	ns := netnstest.New(t)
	ns.Run("nft", `table bridge brfuse {
	set mac { typeof iifname . ether saddr; elements = { "brf0000000001" . 02:00:00:00:00:01 } }
	set ipv4 { typeof iifname . ip saddr; elements = { "brf0000000001" . 10.9.0.1 } }
	set ipv6 { typeof iifname . ip6 saddr; elements = { "brf0000000001" . fe80::ff:fe00:1, "brf0000000001" . fd00::1 } }
}`)
	want := portNumber(1)
	want.Addresses[1] = netip.MustParseAddr("fd00::1")
	for range 2 { // from the old tables, and from those that were made of them
		assert.Equal(t, []guard.Port{want}, openGuard(t, ns).Ports())
		assert.Contains(t, ns.Run("nft", "list", "set", "bridge", "brfuse", "ipv4"), `"brf0000000001" . 02:00:00:00:00:01 . 10.9.0.1`)
	}
}

// A rule set that was saved before an upgrade may be loaded after it.
func TestIntegrationTablesOfAnEarlierVersionAreReplaced(t *testing.T) {
	ns := netnstest.New(t)
	g := openGuard(t, ns)
	require.NoError(t, g.SetPort(t.Context(), portNumber(1)))
	ns.Run("nft", `delete table bridge brfuse
table bridge brfuse {
	set mac { typeof iifname . ether saddr; }
	set ipv4 { typeof iifname . ip saddr; }
	set ipv6 { typeof iifname . ip6 saddr; }
}`)
	require.NoError(t, g.SetPort(t.Context(), portNumber(2)))
	require.NoError(t, g.SetPort(t.Context(), portNumber(1)))
	assert.Contains(t, ns.Run("nft", "list", "set", "bridge", "brfuse", "ipv4"), `"brf0000000002" . 02:00:00:00:00:02 . 10.9.0.2`)
	assert.Len(t, openGuard(t, ns).Ports(), 2)
}

func TestIntegrationDeletedTablesAreRestored(t *testing.T) {
	ns := netnstest.New(t)
	g := openGuard(t, ns)
	require.NoError(t, g.SetNetwork(t.Context(), testNetwork()))
	for i := range 2 {
		require.NoError(t, g.SetPort(t.Context(), portNumber(i)))
	}
	want := ns.Run("nft", "list", "ruleset")
	for _, command := range [][]string{
		{"flush", "ruleset"},
		{"delete", "table", "bridge", "brfuse"},
		{"delete", "table", "inet", "brfuse"},
	} {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			ns.Run("nft", command...)
			require.Eventually(t, func() bool { return ns.Run("nft", "list", "ruleset") == want }, 5*time.Second, time.Millisecond)
		})
	}
	ns.Run("nft", "flush", "table", "bridge", "brfuse")
	require.NoError(t, g.SetNetwork(t.Context(), testNetwork()), "puts right what else was changed")
	assert.Equal(t, want, ns.Run("nft", "list", "ruleset"))
	ns.Run("nft", "flush", "ruleset")
	require.NoError(t, g.SetPort(t.Context(), portNumber(1)), "with the tables or without")
	require.NoError(t, g.RemovePort(t.Context(), portNumber(0).Tap))
}

func TestIntegrationNothingIsLeft(t *testing.T) {
	ns := netnstest.New(t)
	before := ns.State()
	g := openGuard(t, ns)
	assert.Equal(t, before, ns.State(), "opening changes nothing")
	p := guard.Port{Tap: "brf0000000001", MAC: vnic.NewMAC()}
	require.NoError(t, g.SetNetwork(t.Context(), testNetwork()))
	require.NoError(t, g.SetPort(t.Context(), p))
	require.NoError(t, g.RemoveNetwork(t.Context(), "net"))
	assert.NotEqual(t, before, ns.State(), "the tables stay for the port")
	require.NoError(t, g.RemovePort(t.Context(), p.Tap))
	require.NoError(t, g.RemovePort(t.Context(), p.Tap), "again")
	require.NoError(t, g.RemoveNetwork(t.Context(), "net"), "again")
	assert.Equal(t, before, ns.State())
}

func TestIntegrationThousandsOfPorts(t *testing.T) {
	ns := netnstest.New(t)
	g := openGuard(t, ns)
	for i := range 3 {
		require.NoError(t, g.SetPort(t.Context(), portNumber(i)))
	}
	for i := 3; i < 2000; i++ {
		require.NoError(t, g.SetPort(t.Context(), portNumber(i)))
	}
	again := openGuard(t, ns) // one batch with all
	assert.Equal(t, g.Ports(), again.Ports())
}

func TestIntegrationCloseIsQuiet(t *testing.T) {
	ns := netnstest.New(t)
	var log strings.Builder
	var g *guard.Guard
	ns.In(func() (err error) {
		g, err = guard.Open(slog.New(slog.NewTextHandler(&log, nil)))
		return err
	})
	require.NoError(t, g.SetNetwork(t.Context(), testNetwork()))
	assert.Contains(t, ns.Run("nft", "list", "set", "inet", "brfuse", "bridges"), `elements = { "br" comment "net" }`)
	require.NoError(t, g.Close())
	assert.Empty(t, log.String())
}

func TestIntegrationProbe(t *testing.T) {
	ns := netnstest.New(t)
	before := ns.State()
	ns.In(guard.Probe)
	assert.Equal(t, before, ns.State())
}

func portNumber(i int) guard.Port {
	return guard.Port{
		Tap: fmt.Sprintf("brf%010x", i), MAC: vnic.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})},
	}
}

// BenchmarkIntegrationSetPort is the filter's share of an attach and detach.
func BenchmarkIntegrationSetPort(b *testing.B) {
	for _, others := range []int{0, 500} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			ns := netnstest.New(b)
			g := openGuard(b, ns)
			require.NoError(b, g.SetNetwork(b.Context(), testNetwork()))
			for i := range others {
				require.NoError(b, g.SetPort(b.Context(), portNumber(i)))
			}
			p := portNumber(9999)
			for b.Loop() {
				if err := g.SetPort(b.Context(), p); err != nil {
					b.Fatal(err)
				}
				if err := g.RemovePort(b.Context(), p.Tap); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
