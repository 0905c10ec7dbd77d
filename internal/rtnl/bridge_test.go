package rtnl_test

import (
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationBridge(t *testing.T) {
	inNewNetns(t, func(h *rtnl.Handle) error {
		mac := vnic.MAC{2, 0, 0, 0, 0, 1}
		b := rtnl.Bridge{Name: "br", Alias: "mine", MAC: mac, MTU: 1500}
		require.NoError(t, h.AddBridge(b))
		require.ErrorIs(t, h.AddBridge(b), fs.ErrExist)
		links, err := h.HostLinks("")
		require.NoError(t, err)
		assert.Len(t, links, 2, "lo and br: nothing is left of the second")
		br, err := h.HostLink("br")
		require.NoError(t, err)
		assert.Equal(t, rtnl.HostLink{Index: br.Index, Name: "br", Kind: "bridge", Alias: "mine", MAC: mac, MTU: 1500, Queue: 1000}, br)

		files, err := rtnl.OpenTap("brf0000000001", 1)
		require.NoError(t, err)
		defer func() { require.NoError(t, rtnl.CloseFiles(files)) }()
		tap, err := h.HostLink("brf0000000001")
		require.NoError(t, err)
		require.NoError(t, h.SetLinkMTU(tap, 1280))
		require.NoError(t, h.JoinBridge(tap, br, vnic.MAC{2, 0, 0, 0, 0, 2}))
		tap, err = h.HostLink(tap.Name)
		require.NoError(t, err)
		assert.Equal(t, br.Index, tap.Master)
		require.NoError(t, h.JoinBridge(tap, br, vnic.MAC{2, 0, 0, 0, 0, 2}), "again")
		ports, err := h.BridgePorts(br)
		require.NoError(t, err)
		assert.Equal(t, []rtnl.HostLink{tap}, ports)
		now, err := h.HostLink("br")
		require.NoError(t, err)
		assert.Equal(t, br, now, "a port changes neither MAC nor MTU")

		require.NoError(t, h.LeaveBridge(tap))
		require.NoError(t, h.LeaveBridge(tap), "again")
		ports, err = h.BridgePorts(br)
		require.NoError(t, err)
		assert.Empty(t, ports)

		one, two := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.2/24")
		require.NoError(t, h.SetHostAddrs(br, []netip.Prefix{one}))
		require.NoError(t, h.SetHostAddrs(br, []netip.Prefix{two}))
		require.NoError(t, h.SetHostAddrs(br, []netip.Prefix{two}), "again")
		require.NoError(t, h.DeleteHostLink(br))
		require.NoError(t, h.DeleteHostLink(br), "again")
		require.ErrorIs(t, h.SetLinkUp(br), fs.ErrNotExist)
		return nil
	})
}

// TestIntegrationHostAddrs changes the addresses that the host itself has on a bridge,
// with what a kernel does to the others of a subnet when it loses its primary one.
func TestIntegrationHostAddrs(t *testing.T) {
	for _, promote := range []string{"0", "1"} {
		t.Run("promote_secondaries="+promote, func(t *testing.T) {
			inNewNetns(t, func(h *rtnl.Handle) error {
				require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/promote_secondaries", []byte(promote), 0))
				require.NoError(t, h.AddBridge(rtnl.Bridge{Name: "br", MAC: vnic.MAC{2, 0, 0, 0, 0, 1}, MTU: 1500}))
				br, err := h.HostLink("br")
				require.NoError(t, err)
				require.NoError(t, h.SetLinkUp(br))
				sets := func(source4, source6 string, addrs ...string) {
					t.Helper()
					var want []netip.Prefix
					for _, a := range addrs {
						want = append(want, netip.MustParsePrefix(a))
					}
					require.NoError(t, h.SetHostAddrs(br, want))
					require.NoError(t, h.SetHostAddrs(br, want), "again")
					assert.Len(t, permanent(t, br), 2, "neighbours stay")
					assert.Equal(t, source4, sourceTo(t, "10.0.0.2"))
					assert.Equal(t, source6, sourceTo(t, "fd00::2"), "of which ::1 has more bits")
					assert.ElementsMatch(t, addrs, globals(t, br))
				}
				require.NoError(t, h.SetHostAddrs(br, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")}))
				for _, addr := range []string{"10.0.0.3", "fd00::3"} {
					require.NoError(t, netlink.NeighAdd(&netlink.Neigh{
						LinkIndex: br.Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(addr), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3},
					}))
				}
				sets("10.0.0.1", "fd00::1", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.9", "fd00::f0:0:9", "10.0.0.9/24", "fd00::f0:0:9/64", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.8", "fd00::f0:0:8", "10.0.0.8/24", "fd00::f0:0:8/64", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.8", "fd00::f0:0:8", "10.0.0.8/24", "10.1.0.1/16", "fd00::f0:0:8/64", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.1", "fd00::1", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.8", "fd00::1", "10.0.0.8/24", "10.0.0.7/24", "10.0.0.1/24", "fd00::1/64")
				sets("10.0.0.1", "fd00::1", "10.0.0.1/24", "10.0.0.8/24", "10.0.0.7/24", "fd00::1/64")
				return nil
			})
		})
	}
}

// sourceTo returns the address that the kernel chooses towards another one.
func sourceTo(t *testing.T, addr string) string {
	t.Helper()
	routes, err := netlink.RouteGet(net.ParseIP(addr))
	require.NoError(t, err)
	require.NotEmpty(t, routes)
	return routes[0].Src.String()
}

// globals returns the addresses of a link but for link-local ones.
func globals(t *testing.T, l rtnl.HostLink) (list []string) {
	t.Helper()
	all, err := netlink.AddrList(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, a := range all {
		if !a.IP.IsLinkLocalUnicast() {
			list = append(list, a.IPNet.String())
		}
	}
	return list
}

// permanent returns the permanent neighbours at a link.
func permanent(t *testing.T, l rtnl.HostLink) (list []netlink.Neigh) {
	t.Helper()
	all, err := netlink.NeighList(l.Index, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, n := range all {
		if n.State&netlink.NUD_PERMANENT != 0 {
			list = append(list, n)
		}
	}
	return list
}
