package guard_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// onEither runs a test on a bridge with taps and on an uplink with macvtaps.
func onEither(t *testing.T, test func(*testing.T, *segment)) {
	t.Helper()
	t.Run("tap", func(t *testing.T) { test(t, newSegment(t)) })
	t.Run("macvtap", func(t *testing.T) { test(t, newDirectSegment(t)) })
}

// newDirectSegment returns an uplink with two macvtaps. Who is at its other end stands
// for the host.
func newDirectSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{t: t, ns: netnstest.New(t)}
	s.ns.Run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far")
	for _, link := range []string{"wan", "far"} {
		s.ns.Run("sysctl", "-qw", "net.ipv6.conf."+link+".disable_ipv6=1")
		s.ns.Run("ip", "link", "set", link, "up")
	}
	s.ns.In(func() (err error) {
		if s.nl, err = rtnl.New(); err != nil {
			return err
		}
		if s.conn, err = rtnl.Dial(); err != nil {
			return err
		}
		s.g, err = guard.Open(discard())
		return err
	})
	t.Cleanup(s.nl.Close)
	t.Cleanup(func() { require.NoError(t, s.conn.Close()) })
	t.Cleanup(func() { require.NoError(t, s.g.Close()) })
	n := testNetwork()
	n.Kind, n.Bridge, n.Uplink, n.Masquerade = vnic.KindMacvtap, "", "wan", false
	require.NoError(t, s.g.SetNetwork(t.Context(), n))
	var err error
	s.uplink, err = s.nl.HostLink("wan")
	require.NoError(t, err)
	s.br, err = s.nl.HostLink("far")
	require.NoError(t, err)
	s.a = s.pod(vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0x0a}, aIP4, aIP6)
	s.b = s.pod(vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0x0b}, bIP4, bIP6)
	s.host = s.listen()
	return s
}

func (s *segment) directPod(mac vnic.MAC, addrs ...string) pod {
	s.t.Helper()
	p := pod{id: vnic.NewID(), mac: mac, ll: mac.LinkLocal().String()}
	name := p.id.TapName()
	require.NoError(s.t, s.conn.Do(rtnl.AddMacvtap(rtnl.NewLink{Name: name, MAC: mac}, s.uplink.Index)))
	l, err := s.nl.HostLink(name)
	require.NoError(s.t, err)
	s.ns.In(func() error {
		files, err := rtnl.OpenMacvtap(l, 1)
		if err == nil {
			p.file = files[0]
		}
		return err
	})
	s.t.Cleanup(func() { require.NoError(s.t, p.file.Close()) })
	port := guard.Port{Tap: name, MAC: mac, Direct: true}
	for _, a := range addrs {
		port.Addresses = append(port.Addresses, netip.MustParseAddr(a))
	}
	require.NoError(s.t, s.g.SetPort(s.t.Context(), port))
	s.ns.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1")
	require.NoError(s.t, s.conn.Do(rtnl.SetAllMulticast(l.Index), rtnl.SetUp(l.Index)))
	return p
}

func TestIntegrationDirectPortsOutliveTheProcess(t *testing.T) {
	s := newDirectSegment(t)
	forged := frametest.Ether(s.b.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2)))
	dropped := func(want uint64) {
		t.Helper()
		neighbour, outside := s.passes(t, forged)
		assert.False(t, neighbour || outside)
		counters, err := s.g.Counters(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, counters[guard.ReasonMAC].Packets)
	}
	dropped(1)
	ports := s.g.Ports()
	require.Len(t, ports, 2)

	require.NoError(t, s.g.Close())
	s.ns.In(func() (err error) {
		s.g, err = guard.Open(discard())
		return err
	})
	assert.Equal(t, ports, s.g.Ports())
	assert.Equal(t, ports[0], s.g.Port(ports[0].Tap))
	dropped(2)

	s.ns.Run("ip", "link", "del", s.a.id.TapName())
	require.NoError(t, s.g.Close())
	s.ns.In(func() (err error) {
		s.g, err = guard.Open(discard())
		return err
	})
	assert.Equal(t, ports, s.g.Ports(), "also that of a macvtap that is gone")
	for _, p := range ports {
		require.NoError(t, s.g.RemovePort(t.Context(), p.Tap))
		require.NoError(t, s.g.RemovePort(t.Context(), p.Tap), "again")
	}
	counters, err := s.g.Counters(t.Context())
	require.NoError(t, err)
	assert.Equal(t, uint64(2), counters[guard.ReasonMAC].Packets, "what was dropped stays counted")
	assert.Empty(t, s.ns.Run("nft", "list", "tables"))
}

func TestIntegrationDirectPortsAreRestored(t *testing.T) {
	s := newDirectSegment(t)
	rules := func() string {
		var all strings.Builder
		for _, p := range s.g.Ports() {
			all.WriteString(s.ns.Run("nft", "list", "table", "netdev", p.Tap))
		}
		return all.String()
	}
	want := rules()
	for _, command := range [][]string{{"flush", "ruleset"}, {"delete", "table", "netdev", s.a.id.TapName()}} {
		s.ns.Run("nft", command...)
		whole := func() bool {
			tables := s.ns.Run("nft", "list", "tables", "netdev")
			return strings.Count(tables, "table netdev "+vnic.Prefix) == 2 && rules() == want
		}
		require.Eventually(t, whole, 5*time.Second, time.Millisecond, "both tables are back after %v", command)
	}
}
