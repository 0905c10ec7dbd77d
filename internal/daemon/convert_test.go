package daemon

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestNetworksGoBothWays(t *testing.T) {
	pool := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}
	gateway := []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	for _, n := range []vnic.Network{
		{Name: "n", Kind: vnic.KindBridge, Bridge: "br0", External: true, Subnets: pool, Gateways: gateway, Masquerade: true, MTU: 1500},
		{Name: "n", Kind: vnic.KindOverlay, VNI: vnic.MaxVNI, Bridge: "bf-n", Subnets: pool, Gateways: gateway, MTU: 1450},
		{Name: "n", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 4094, Bridge: "bf-n", Unaddressed: true},
		{Name: "n", Kind: vnic.KindMacvtap, Uplink: "eth1"},
	} {
		got, err := networkFromProto(networkToProto(n))
		require.NoError(t, err)
		assert.Equal(t, n, got)
	}
}
