package vnic_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i := range s {
		out[i] = netip.MustParsePrefix(s[i])
	}
	return out
}

func TestNetworkDefaults(t *testing.T) {
	n, err := vnic.Network{Name: "blue", Subnets: prefixes("10.9.0.0/24", "fd00:9::/64")}.Complete()
	require.NoError(t, err)
	assert.Equal(t, "bf-blue", n.Bridge)
	assert.Equal(t, 1500, n.MTU)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")}, n.Gateways)
	again, err := n.Complete()
	require.NoError(t, err)
	assert.Equal(t, n, again, "a completed network stays as it is")
}

func TestNetworkRefuses(t *testing.T) {
	good := vnic.Network{Name: "n", Subnets: prefixes("10.9.0.0/24")}
	tests := []struct {
		name string
		edit func(*vnic.Network)
		want string
	}{
		{"no name", func(n *vnic.Network) { n.Name = "" }, "name is empty"},
		{"bad name", func(n *vnic.Network) { n.Name = "a b" }, `"a b"`},
		{"long name", func(n *vnic.Network) { n.Name = strings.Repeat("x", 64) }, "longer than 63"},
		{"no subnet", func(n *vnic.Network) { n.Subnets = nil }, "no subnet"},
		{"host bits", func(n *vnic.Network) { n.Subnets = prefixes("10.9.0.5/24") }, "meant 10.9.0.0/24"},
		{"two of one family", func(n *vnic.Network) { n.Subnets = prefixes("10.9.0.0/24", "10.8.0.0/24") }, "two subnets of one family"},
		{"too small", func(n *vnic.Network) { n.Subnets = prefixes("10.9.0.0/31") }, "not in 8-30"},
		{"multicast", func(n *vnic.Network) { n.Subnets = prefixes("224.0.0.0/24") }, "no unicast range"},
		{"invalid prefix", func(n *vnic.Network) { n.Subnets = []netip.Prefix{{}} }, "not a prefix"},
		{"gateway outside", func(n *vnic.Network) { n.Gateways = []netip.Addr{netip.MustParseAddr("10.8.0.1")} }, "no host address"},
		{"gateway is broadcast", func(n *vnic.Network) { n.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.255")} }, "no host address"},
		{"mtu", func(n *vnic.Network) { n.MTU = 576 }, "mtu 576"},
		{"bridge name", func(n *vnic.Network) { n.Bridge = "a/b" }, "interface name"},
		{"external without bridge", func(n *vnic.Network) { n.External = true }, "needs its name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := good
			tt.edit(&n)
			_, err := n.Complete()
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.Contains(t, err.Error(), tt.want)
		})
	}
}

func TestNetworkKinds(t *testing.T) {
	pool := prefixes("10.9.0.0/24")
	tests := []struct {
		name string
		n    vnic.Network
		want vnic.Network // beside what all have
	}{
		{"bridge", vnic.Network{}, vnic.Network{Kind: vnic.KindBridge, Bridge: "bf-n", MTU: 1500}},
		{"overlay", vnic.Network{Kind: vnic.KindOverlay, VNI: 7, Masquerade: true}, vnic.Network{Kind: vnic.KindOverlay, VNI: 7, Masquerade: true, Bridge: "bf-n"}},
		{
			"vlan",
			vnic.Network{Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 4094},
			vnic.Network{Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 4094, Bridge: "bf-n", MTU: 1500},
		},
		{"macvtap", vnic.Network{Kind: vnic.KindMacvtap, Uplink: "eth1"}, vnic.Network{Kind: vnic.KindMacvtap, Uplink: "eth1", MTU: 1500}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.n.Name, tt.n.Subnets = "n", pool
			tt.want.Name, tt.want.Subnets, tt.want.Gateways = "n", pool, []netip.Addr{netip.MustParseAddr("10.9.0.1")}
			got, err := tt.n.Complete()
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)

			tt.n.Subnets, tt.n.Masquerade, tt.n.Unaddressed = nil, false, true
			tt.want.Subnets, tt.want.Gateways, tt.want.Masquerade, tt.want.Unaddressed = nil, nil, false, true
			got, err = tt.n.Complete()
			require.NoError(t, err)
			assert.Equal(t, tt.want, got, "without addresses")
		})
	}
}

func TestNetworkKindsRefuse(t *testing.T) {
	tests := []struct {
		name string
		n    vnic.Network
		want string
	}{
		{"unknown kind", vnic.Network{Kind: "ipvlan"}, `kind "ipvlan" is not bridge, overlay, vlan or macvtap`},
		{"external overlay", vnic.Network{Kind: vnic.KindOverlay, Bridge: "br0", External: true}, "an existing bridge can't be of kind overlay"},
		{"vni of a bridge", vnic.Network{VNI: 7}, "vni 7: only an overlay has one"},
		{"vni too large", vnic.Network{Kind: vnic.KindOverlay, VNI: 1 << 24}, "vni 16777216 is not in 1-16777215"},
		{"no tag", vnic.Network{Kind: vnic.KindVLAN, Uplink: "eth1"}, "vlan 0 is not in 1-4094"},
		{"tag too large", vnic.Network{Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 4095}, "vlan 4095 is not in 1-4094"},
		{"tag of a macvtap", vnic.Network{Kind: vnic.KindMacvtap, Uplink: "eth1", VLAN: 7}, "vlan 7: only a network of kind vlan has one"},
		{"uplink of a bridge", vnic.Network{Uplink: "eth1"}, "uplink eth1: only networks of the kinds vlan and macvtap have one"},
		{"no uplink", vnic.Network{Kind: vnic.KindMacvtap}, "uplink: "},
		{"bad uplink", vnic.Network{Kind: vnic.KindVLAN, Uplink: "a/b", VLAN: 7}, "uplink: "},
		{"bridge of macvtaps", vnic.Network{Kind: vnic.KindMacvtap, Uplink: "eth1", Bridge: "br0"}, "bridge br0: a network of kind macvtap has none"},
		{"masqueraded macvtaps", vnic.Network{Kind: vnic.KindMacvtap, Uplink: "eth1", Masquerade: true}, "which can't masquerade it"},
		{"masqueraded vlan", vnic.Network{Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 7, Masquerade: true}, "which can't masquerade it"},
		{"subnets without addresses", vnic.Network{Unaddressed: true}, "one without addresses has no subnets, gateways or masquerading"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.n.Name, tt.n.Subnets = "n", prefixes("10.9.0.0/24")
			_, err := tt.n.Complete()
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.Contains(t, err.Error(), "network n: ")
			assert.Contains(t, err.Error(), tt.want)
		})
	}
}

func TestBridgeNameFits(t *testing.T) {
	for _, name := range []string{"a", "exactly12cha", "one-more-than12", strings.Repeat("n", 63)} {
		b := vnic.BridgeName(name)
		assert.LessOrEqual(t, len(b), 15, name)
		require.NoError(t, vnic.CheckInterface(b))
	}
	assert.NotEqual(t, vnic.BridgeName("a-very-long-name-1"), vnic.BridgeName("a-very-long-name-2"))
}

func TestLastAddr(t *testing.T) {
	for in, want := range map[string]string{"10.9.0.0/24": "10.9.0.255", "10.8.0.0/13": "10.15.255.255", "fd00::/64": "fd00::ffff:ffff:ffff:ffff"} {
		assert.Equal(t, want, vnic.LastAddr(netip.MustParsePrefix(in)).String())
	}
}
