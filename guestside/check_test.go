package guestside

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(link netlink.Link) error
		want string
	}{
		{"whole", func(netlink.Link) error { return nil }, ""},
		{"more than ordered", func(l netlink.Link) error { return netlink.AddrAdd(l, addr("10.8.0.9/24")) }, ""},
		{"down", netlink.LinkSetDown, "it is down"},
		{"name", func(l netlink.Link) error { return netlink.LinkSetName(l, "eth9") }, "it is named eth9, not eth0"},
		{"mtu", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }, "its mtu is 1300, not 1400"},
		{"mac", func(l netlink.Link) error {
			return netlink.LinkSetHardwareAddr(l, vnic.MAC{2, 0, 0, 0, 0, 9}.HardwareAddr())
		}, "its mac is 02:00:00:00:00:09"},
		{"IPv4 address", func(l netlink.Link) error { return netlink.AddrDel(l, addr("10.9.0.2/24")) }, "address 10.9.0.2/24 is missing"},
		{"IPv6 address", func(l netlink.Link) error { return netlink.AddrDel(l, addr("fd00:9::2/64")) }, "address fd00:9::2/64 is missing"},
		{"route", func(l netlink.Link) error {
			return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: addr("10.9.0.1/32").IP})
		}, "route to 0.0.0.0/0 via 10.9.0.1 is missing"},
		{"gone", netlink.LinkDel, "vnic did not appear"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, pod := newLab(t), newNS(t)
			m := order(pod, "10.9.0.2/24", "fd00:9::2/64")
			m.MTU = 1400
			m.Routes = []vnic.Route{
				{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1")},
				{Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00:9::1")},
				{Destination: netip.MustParsePrefix("10.20.0.0/16")},
			}
			l.plug(m, "ens7")
			l.attach(m)
			in(t, pod, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return tt.edit(link)
			})
			err := l.Check(l.deadline(), m)
			switch {
			case tt.want == "":
				require.NoError(t, err)
			case tt.name == "gone":
				require.ErrorIs(t, err, vnic.ErrNICMissing)
			default:
				require.ErrorIs(t, err, vnic.ErrDiffers)
				require.ErrorContains(t, err, tt.want)
			}
		})
	}
}

func addr(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestIntegrationCheckOfNoPod(t *testing.T) {
	l := newLab(t)
	m := order(l.home)
	m.Netns = "no-such-pod"
	require.ErrorIs(t, l.Check(l.deadline(), m), vnic.ErrUnknownPod)
}

func TestIntegrationNameFree(t *testing.T) {
	l, pod := newLab(t), newNS(t)
	m := order(pod)
	m.Interface = "eth1"
	l.plug(m, "ens7")
	l.attach(m)
	in(t, pod, func() error { return addAltName("eth1", "lan0") })
	for _, tt := range []struct {
		name, netns, iface string
		want               error
	}{
		{"free", ref(pod), "eth0", nil},
		{"taken", ref(pod), "eth1", vnic.ErrNameTaken},
		{"alternative name", ref(pod), "lan0", vnic.ErrNameTaken},
		{"no pod", "/run/netns/no-such-pod", "eth0", vnic.ErrUnknownPod},
		{"the vm's own", ref(l.home), "eth0", vnic.ErrInvalid},
		{"loopback", ref(pod), "lo", vnic.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := l.NameFree(l.deadline(), tt.netns, tt.iface)
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tt.want)
		})
	}
}
