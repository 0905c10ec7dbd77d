package port_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationVLAN(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	before := ns.State()
	n := network(t, func(n *vnic.Network) { n.Kind, n.Uplink, n.VLAN = vnic.KindVLAN, "wan", 100 })
	err := l.SetNetwork(t.Context(), n)
	if errors.Is(err, vnic.ErrUnsupported) {
		require.ErrorContains(t, err, "set network pods: ")
		require.ErrorContains(t, err, "this kernel lacks tagged links: load the module 8021q (CONFIG_VLAN_8021Q)")
		require.NoError(t, l.RemoveNetwork(t.Context(), n))
		assert.Equal(t, before, ns.State())
		t.Skip("the kernel has no tagged links: the rest runs in a guest")
	}
	require.NoError(t, err)
	whole := func() {
		t.Helper()
		show := ns.Run("ip", "-d", "link", "show", "bfv-pods")
		for _, want := range []string{"bfv-pods@wan", "vlan protocol 802.1Q id 100", "mtu 1400", "NOARP", ",UP", "master bf-pods", "alias brfuse network pods", "learning on", "flood on"} {
			assert.Contains(t, show, want)
		}
		assert.NotContains(t, ns.Run("ip", "addr", "show", "bf-pods"), "10.9.0.1", "the gateway is a router outside")
		assert.Equal(t, "0\n1\n", ns.Run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.bfv-pods.disable_ipv6"))
	}
	whole()
	ns.Run("ip", "addr", "add", "10.9.0.77/24", "dev", "bf-pods")
	ns.Run("ip", "link", "set", "bfv-pods", "nomaster", "down", "mtu", "1300")
	require.NoError(t, l.SetNetwork(t.Context(), n))
	whole()
	assert.Contains(t, ns.Run("ip", "addr", "show", "bf-pods"), "10.9.0.77", "the bridge's addresses are others'")

	ns.Run("ip", "link", "del", "wan")
	require.ErrorIs(t, l.SetNetwork(t.Context(), n), vnic.ErrInvalid, "the uplink is gone")
	ns.Run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far")
	require.NoError(t, l.SetNetwork(t.Context(), n), "and back, down as yet")
	whole()

	ns.Run("ip", "link", "del", "bf-pods")
	nets, err := l.Networks(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []vnic.Network{{Name: "pods", Bridge: "bf-pods"}}, nets, "by the tagged link alone")
	require.NoError(t, l.SetNetwork(t.Context(), n))
	whole()

	same := network(t, func(n *vnic.Network) {
		n.Name, n.Kind, n.Uplink, n.VLAN = "same", vnic.KindVLAN, "wan", 100
		n.Subnets = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/24")}
	})
	require.ErrorIs(t, l.SetNetwork(t.Context(), same), vnic.ErrConflict)
	require.NoError(t, l.RemoveNetwork(t.Context(), same))

	require.NoError(t, l.RemoveNetwork(t.Context(), vnic.Network{Name: "pods", Bridge: "bf-pods"}))
	require.NoError(t, l.RemoveNetwork(t.Context(), n), "again")
	assert.NotContains(t, ns.State(), "bf")
}

func TestIntegrationUnaddressedBridge(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	n := network(t, func(n *vnic.Network) { n.Subnets, n.Unaddressed = nil, true })
	require.NoError(t, l.SetNetwork(t.Context(), n))
	ns.Run("ip", "addr", "add", "10.9.0.77/24", "dev", "bf-pods")
	require.NoError(t, l.SetNetwork(t.Context(), n))
	assert.Contains(t, ns.Run("ip", "addr", "show", "bf-pods"), "10.9.0.77", "a DHCP server's, say")
	assert.Equal(t, "0\n", ns.Run("sysctl", "-n", "net.ipv4.ip_forward"))
}
