package port_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

// inGuest is why a test is skipped that TestIntegrationKernel, in package integration,
// runs where the kernel has tagged links.
const inGuest = "the kernel has no tagged links: the rest runs in a guest"

func vlanNetwork(t *testing.T) vnic.Network {
	t.Helper()
	return network(t, func(n *vnic.Network) { n.Kind, n.Uplink, n.VLAN = vnic.KindVLAN, "wan", 100 })
}

func TestIntegrationVLAN(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	before := ns.State()
	n := vlanNetwork(t)
	err := l.SetNetwork(t.Context(), n)
	if errors.Is(err, vnic.ErrUnsupported) {
		require.ErrorContains(t, err, "set network pods: ")
		require.ErrorContains(t, err, "this kernel lacks tagged links: load the module 8021q (CONFIG_VLAN_8021Q)")
		require.NoError(t, l.RemoveNetwork(t.Context(), n))
		assert.Equal(t, before, ns.State())
		t.Skip(inGuest)
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

// TestIntegrationVLANCarriesFrames has a vNIC ask for stations outside. That without a
// tag doesn't hear of it, nor does that of another VLAN.
func TestIntegrationVLANCarriesFrames(t *testing.T) {
	ns, outside := uplinked(t), netnstest.New(t)
	ns.Run("ip", "link", "set", "far", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), outside.FD()))
	l := newLinks(t, ns)
	n := vlanNetwork(t)
	err := l.SetNetwork(t.Context(), n)
	if errors.Is(err, vnic.ErrUnsupported) {
		t.Skip(inGuest)
	}
	require.NoError(t, err)
	outside.Run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1") // each link answers for its own addresses
	outside.Run("ip", "link", "set", "far", "up")
	outside.Run("ip", "addr", "add", "10.9.0.201/24", "dev", "far")
	for _, tag := range []string{"100", "200"} {
		outside.Run("ip", "link", "add", "link", "far", "name", "far."+tag, "up", "type", "vlan", "id", tag)
		outside.Run("ip", "addr", "add", "10.9.0."+tag+"/24", "dev", "far."+tag)
	}
	p := plug(n)
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tap.Close()) })
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	for _, station := range []string{"10.9.0.201", "10.9.0.200", "10.9.0.100"} {
		ask := frametest.Ether(p.MAC, frametest.Broadcast, unix.ETH_P_ARP, frametest.ARP(1, p.MAC, "10.9.0.2", station))
		_, err := tap.Files[0].Write(append(make([]byte, vnetHeader), ask...))
		require.NoError(t, err)
	}
	mac, err := vnic.ParseMAC(strings.Fields(outside.Run("ip", "-br", "link", "show", "far.100"))[2])
	require.NoError(t, err)
	answer := frametest.Ether(mac, p.MAC, unix.ETH_P_ARP, frametest.ARP(2, mac, "10.9.0.100", "10.9.0.2"))
	copy(answer[32:], p.MAC[:]) // to whom
	require.NoError(t, tap.Files[0].SetReadDeadline(time.Now().Add(30*time.Second)))
	buf := make([]byte, 4096)
	got, err := tap.Files[0].Read(buf)
	require.NoError(t, err)
	assert.Equal(t, answer, buf[vnetHeader:got], "the first answer, without its tag")
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
