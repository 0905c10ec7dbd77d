package orchestrator

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestNetworksOfKinds(t *testing.T) {
	pool := func(n byte) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, n, 0}), 24)}
	}
	vlan := vnic.Network{Name: "v1", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 100, Subnets: pool(1)}
	overlay := vnic.Network{Name: "o1", Kind: vnic.KindOverlay, VNI: 7, MTU: 1450, Subnets: pool(2)}
	macvtap := vnic.Network{Name: "m1", Kind: vnic.KindMacvtap, Uplink: "eth1", Subnets: pool(3)}
	for _, tt := range []struct {
		name string
		n    vnic.Network
		want string // none: it may be
	}{
		{"same vlan", vnic.Network{Name: "v2", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 100, Subnets: pool(11)}, "vlan 100 of uplink eth1 is that of network v1; choose another: in use"},
		{"another tag", vnic.Network{Name: "v2", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 101, Subnets: pool(11)}, ""},
		{"another uplink", vnic.Network{Name: "v2", Kind: vnic.KindVLAN, Uplink: "eth2", VLAN: 100, Subnets: pool(11)}, ""},
		{"same vni", vnic.Network{Name: "o2", Kind: vnic.KindOverlay, VNI: 7, Subnets: pool(12)}, "vni 7 is that of network o1; choose another: in use"},
		{"another vni", vnic.Network{Name: "o2", Kind: vnic.KindOverlay, VNI: 8, Subnets: pool(12)}, ""},
		{"second macvtap", vnic.Network{Name: "m2", Kind: vnic.KindMacvtap, Uplink: "eth1", Subnets: pool(13)}, ""},
		{"macvtap's subnet", vnic.Network{Name: "m2", Kind: vnic.KindMacvtap, Uplink: "eth2", Subnets: pool(3)}, "subnet 10.20.3.0/24 overlaps 10.20.3.0/24 of network m1; choose another: in use"},
		{"type", vnic.Network{Name: "m1", Subnets: pool(3)}, "its type: macvtap, not bridge; remove it first by `brfuse network rm m1`: exists and differs"},
		{"uplink", vnic.Network{Name: "m1", Kind: vnic.KindMacvtap, Uplink: "eth2", Subnets: pool(3)}, "its uplink: eth1, not eth2; remove it first by `brfuse network rm m1`: exists and differs"},
		{"tag", vnic.Network{Name: "v1", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 7, Subnets: pool(1)}, "its vlan: 100, not 7; remove it first by `brfuse network rm v1`: exists and differs"},
		{"addresses", vnic.Network{Name: "v1", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 100, Unaddressed: true}, "its addresses: on, not off; remove it first by `brfuse network rm v1`: exists and differs"},
		{"vni", vnic.Network{Name: "o1", Kind: vnic.KindOverlay, VNI: 8, Subnets: pool(2)}, "its vni: 7, not 8; remove it first by `brfuse network rm o1`: exists and differs"},
		{"the same overlay", vnic.Network{Name: "o1", Kind: vnic.KindOverlay, Subnets: pool(2)}, ""},
		{"the same vlan", vnic.Network{Name: "v1", Kind: vnic.KindVLAN, Uplink: "eth1", VLAN: 100, Subnets: pool(1)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := tt.n.Complete()
			require.NoError(t, err)
			for _, old := range []vnic.Network{vlan, overlay, macvtap} {
				old, cerr := old.Complete()
				require.NoError(t, cerr)
				if old.Name == n.Name {
					err = compareNetworks(old, n)
				} else {
					err = clash(old, n)
				}
				if err != nil {
					break
				}
			}
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, tt.want)
			}
		})
	}
}
