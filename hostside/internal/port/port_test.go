package port_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/vnic"
)

func newLinks(t *testing.T, ns *netnstest.NS) *port.Links {
	t.Helper()
	var l *port.Links
	ns.In(func() (err error) {
		l, err = port.New(slog.New(slog.DiscardHandler))
		return err
	})
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func network(t *testing.T, change func(*vnic.Network)) vnic.Network {
	t.Helper()
	n := vnic.Network{
		Name: "pods", MTU: 1400,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")},
	}
	if change != nil {
		change(&n)
	}
	n, err := n.Complete()
	require.NoError(t, err)
	return n
}

func plug(n vnic.Network) vnic.Plug {
	return vnic.Plug{VM: "vm", ID: vnic.NewID(), Network: n.Name, MAC: vnic.NewMAC(), MTU: n.MTU, Queues: 1}
}

func TestIntegrationNetworkIsMadeRepairedAndRemoved(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	before := ns.State()
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	show := func() string { return ns.Run("ip", "-d", "addr", "show", "bf-pods") }
	want := []string{"alias brfuse network pods", "mtu 1400", "mcast_snooping 0", "inet 10.9.0.1/24", "inet6 fd00:9::1/64", ",UP"}
	for _, w := range want {
		assert.Contains(t, show(), w)
	}
	assert.NotContains(t, show(), "tentative")
	assert.Equal(t, "1\n1\n", ns.Run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"))

	ns.Run("ip", "addr", "flush", "dev", "bf-pods", "scope", "global")
	ns.Run("ip", "addr", "add", "10.9.0.77/24", "dev", "bf-pods")
	ns.Run("ip", "link", "set", "bf-pods", "down", "mtu", "1300")
	require.NoError(t, l.SetNetwork(t.Context(), n))
	for _, w := range want {
		assert.Contains(t, show(), w)
	}
	assert.NotContains(t, show(), "10.9.0.77")

	require.NoError(t, l.RemoveNetwork(t.Context(), n))
	require.NoError(t, l.RemoveNetwork(t.Context(), n), "again")
	assert.Equal(t, before, ns.State())
}

func TestIntegrationForeignLinksAreLeftAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		make []string
		ours bool
	}{
		{"bare bridge that is down", []string{"ip link add bf-pods type bridge"}, false},
		{"bridge that is up", []string{"ip link add bf-pods up type bridge"}, false},
		{"bridge with another's alias", []string{"ip link add bf-pods type bridge", "ip link set bf-pods alias other"}, false},
		{"bridge of another network", []string{"ip link add bf-pods type bridge", "ip link set bf-pods alias brfuse\x00network\x00pod"}, false},
		{"bridge with a port", []string{"ip link add bf-pods type bridge", "ip link add p type veth peer name q", "ip link set p master bf-pods"}, false},
		{"no bridge", []string{"ip link add bf-pods type veth peer name q"}, false},
		{"bridge of an earlier process", []string{"ip link add bf-pods up type bridge", "ip link set bf-pods alias brfuse\x00network\x00pods"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.New(t)
			for _, command := range tt.make {
				args := strings.Fields(command)
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "\x00", " ")
				}
				ns.Run(args[0], args[1:]...)
			}
			l := newLinks(t, ns)
			before := ns.State()
			n := network(t, nil)
			if tt.ours {
				require.NoError(t, l.SetNetwork(t.Context(), n))
				require.NoError(t, l.RemoveNetwork(t.Context(), n))
				assert.NotContains(t, ns.State(), "bf-pods")
				return
			}
			err := l.SetNetwork(t.Context(), n)
			require.ErrorIs(t, err, vnic.ErrConflict)
			require.ErrorContains(t, err, "set network pods: link bf-pods is there and not brfuse's")
			require.ErrorContains(t, err, "use it as an external bridge (--external), or give the network another name or bridge")
			require.NoError(t, l.RemoveNetwork(t.Context(), n))
			assert.Equal(t, before, ns.State())
		})
	}
}

func TestIntegrationUnfinishedBridgesAreRemoved(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	ns.Run("ip", "link", "add", "bfnew-other", "type", "bridge")
	ns.Run("ip", "link", "set", "bfnew-other", "alias", "other")
	ns.Run("ip", "link", "add", "bfnew-up", "up", "type", "bridge")
	ns.Run("ip", "link", "add", "bfnew-veth", "type", "veth", "peer", "name", "q")
	ns.Run("ip", "link", "add", "bfnew-port", "type", "bridge")
	ns.Run("ip", "link", "set", "q", "master", "bfnew-port")
	foreign := ns.State()
	ns.Run("ip", "link", "add", "bfnew-00000001", "type", "bridge")
	ns.Run("ip", "link", "add", "bfnew-00000002", "type", "bridge")
	ns.Run("ip", "link", "set", "bfnew-00000002", "alias", "brfuse network pods")
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	require.NoError(t, l.RemoveNetwork(t.Context(), n))
	assert.Equal(t, foreign, ns.State())
}

func TestIntegrationNetworksAreMadeAtOnce(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	names := []string{"a", "b", "c", "d", "e", "f"}
	errs := make(chan error, len(names))
	for i, name := range names {
		pool := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, byte(i), 0}), 24)
		n := network(t, func(n *vnic.Network) { n.Name, n.Subnets = name, []netip.Prefix{pool} })
		go func() { errs <- l.SetNetwork(t.Context(), n) }()
	}
	for range names {
		require.NoError(t, <-errs)
	}
	for _, name := range names {
		assert.Contains(t, ns.State(), "link bf-"+name+" ")
	}
	assert.NotContains(t, ns.State(), "bfnew-")
}

func TestIntegrationMACsOfTheBridgeAreRefused(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	ns.Run("ip", "link", "add", "p", "type", "veth", "peer", "name", "q")
	ns.Run("ip", "link", "set", "p", "master", "bf-pods", "up")
	first := plug(n)
	tap, err := l.OpenTap(t.Context(), first)
	require.NoError(t, err)
	defer func() { require.NoError(t, tap.Close()) }()
	require.NoError(t, l.Join(t.Context(), tap.Name, n, first.MAC))
	require.NoError(t, l.Join(t.Context(), tap.Name, n, first.MAC), "again")
	// The groups that a link listens to ("self") come when its carrier does.
	forwarding := func() string {
		var entries []string
		for line := range strings.Lines(ns.Run("bridge", "fdb", "show", "br", "bf-pods")) {
			if strings.Contains(line, " master ") {
				entries = append(entries, line)
			}
		}
		return strings.Join(entries, "")
	}
	before, state := forwarding(), ns.State()
	macOf := func(link string) vnic.MAC {
		mac, err := vnic.ParseMAC(strings.Fields(ns.Run("ip", "-br", "link", "show", link))[2])
		require.NoError(t, err)
		return mac
	}
	for _, tt := range []struct {
		name string
		mac  vnic.MAC
		want string
	}{
		{"the bridge's", macOf("bf-pods"), "that of bridge bf-pods; choose another: address taken"},
		{"a port's own", macOf("p"), "that of port p of bridge bf-pods; choose another: address taken"},
		{"a tap's own", macOf(tap.Name), "that of port " + tap.Name + " of bridge bf-pods"},
		{"another vNIC's", first.MAC, "that of port " + tap.Name + " of bridge bf-pods"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := plug(n)
			tap, err := l.OpenTap(t.Context(), p)
			require.NoError(t, err)
			err = l.Join(t.Context(), tap.Name, n, tt.mac)
			require.ErrorIs(t, err, vnic.ErrAddressTaken)
			require.ErrorContains(t, err, "mac "+tt.mac.String()+" is "+tt.want)
			assert.NotContains(t, ns.Run("ip", "link", "show", tap.Name), "master")
			require.NoError(t, l.Leave(t.Context(), p.ID))
			require.NoError(t, tap.Close())
			require.NoError(t, l.DeleteTap(t.Context(), p.ID))
			assert.Equal(t, before, forwarding())
			assert.Equal(t, state, ns.State())
		})
	}
}

func TestIntegrationBridgeStaysReachable(t *testing.T) {
	host, peer := netnstest.New(t), netnstest.New(t)
	l := newLinks(t, host)
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	mac, err := vnic.ParseMAC(strings.Fields(host.Run("ip", "-br", "link", "show", "bf-pods"))[2])
	require.NoError(t, err)
	p := plug(n)
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	require.ErrorIs(t, l.Join(t.Context(), tap.Name, n, mac), vnic.ErrAddressTaken, "as the first port")
	require.NoError(t, tap.Close())
	require.NoError(t, l.DeleteTap(t.Context(), p.ID))

	host.Run("ip", "link", "add", "p", "type", "veth", "peer", "name", "q")
	host.Run("ip", "link", "set", "p", "master", "bf-pods", "up")
	host.Run("ip", "link", "set", "q", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), peer.FD()))
	peer.Run("ip", "addr", "add", "10.9.0.2/24", "dev", "q")
	peer.Run("ip", "link", "set", "q", "up")
	peer.Run("ping", "-c", "1", "-w", "10", "10.9.0.1")
}

func TestIntegrationLearnedMACGivesWay(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	ns.Run("ip", "link", "add", "p", "type", "veth", "peer", "name", "q")
	ns.Run("ip", "link", "set", "p", "master", "bf-pods", "up")
	ns.Run("ip", "link", "set", "q", "up")
	forwards := func() bool { return strings.Contains(ns.Run("bridge", "link", "show", "dev", "p"), "state forwarding") }
	require.Eventually(t, forwards, 5*time.Second, time.Millisecond, "the bridge learns of the port's carrier")
	p := plug(n)
	ns.Run("bridge", "fdb", "add", p.MAC.String(), "dev", "p", "master", "dynamic")
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	defer func() { require.NoError(t, tap.Close()) }()
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	forwarding := ns.Run("bridge", "fdb", "show", "br", "bf-pods")
	assert.Contains(t, forwarding, p.MAC.String()+" dev "+tap.Name+" master bf-pods static")
	assert.NotContains(t, forwarding, p.MAC.String()+" dev p ")
}

func TestIntegrationExternalBridge(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, func(n *vnic.Network) { n.Bridge, n.External = "br0", true })
	require.ErrorIs(t, l.SetNetwork(t.Context(), n), vnic.ErrInvalid, "there is none")
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	before := ns.Run("ip", "addr", "show", "br0")
	require.NoError(t, l.SetNetwork(t.Context(), n))
	assert.Equal(t, before, ns.Run("ip", "addr", "show", "br0"))
	assert.Equal(t, "0\n0\n", ns.Run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"))
	require.NoError(t, l.RemoveNetwork(t.Context(), n))
	assert.Contains(t, ns.State(), "br0")

	ns.Run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
	n = network(t, func(n *vnic.Network) { n.Bridge, n.External = "far", true })
	require.ErrorContains(t, l.SetNetwork(t.Context(), n), "far is no Linux bridge")
}

func TestIntegrationRouterKeepsItsOwnRoute(t *testing.T) {
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
	ns.Run("sysctl", "-qw", "net.ipv6.conf.far.accept_ra=0")
	require.NoError(t, newLinks(t, ns).SetNetwork(t.Context(), network(t, nil)))
	assert.Equal(t, "2\n0\n0\n", ns.Run("sysctl", "-n",
		"net.ipv6.conf.uplink.accept_ra", "net.ipv6.conf.far.accept_ra", "net.ipv6.conf.bf-pods.accept_ra"))
}

func TestIntegrationBridgeKeepsItsMAC(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	before := ns.State()
	p := plug(n)
	p.MTU = 1280
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	for line := range strings.Lines(before) {
		assert.Contains(t, ns.State(), line, "with a port")
	}
	assert.Contains(t, ns.Run("ip", "link", "show", "bf-pods"), "mtu 1400")

	err = l.RemoveNetwork(t.Context(), n)
	require.ErrorIs(t, err, vnic.ErrInUse)
	require.ErrorContains(t, err, "bridge bf-pods has 1 ports, one of them "+tap.Name)
	require.NoError(t, l.Leave(t.Context(), p.ID))
	require.NoError(t, tap.Close())
	require.NoError(t, l.DeleteTap(t.Context(), p.ID))
	require.NoError(t, l.Leave(t.Context(), p.ID), "gone")
	require.NoError(t, l.Park(t.Context(), p.ID), "gone")
	assert.Equal(t, before, ns.State(), "and without")
}

func TestIntegrationTap(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	p := plug(network(t, nil))
	p.Queues = 3
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	assert.Len(t, tap.Files, 3)
	assert.Contains(t, ns.Run("ip", "-d", "link", "show", tap.Name), "multi_queue numqueues 3")
	assert.Equal(t, "1\n", ns.Run("sysctl", "-n", "net.ipv6.conf."+tap.Name+".disable_ipv6"))
	_, err = l.OpenTap(t.Context(), p)
	require.ErrorIs(t, err, fs.ErrExist, "one that is there is not adopted")
	taps, err := l.TapStates(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[vnic.ID]port.TapState{p.ID: {Network: p.Network}}, taps)

	require.NoError(t, tap.Close())
	require.NoError(t, l.DeleteTap(t.Context(), p.ID), "gone with its descriptors")

	tap, err = l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, l.DeleteTap(t.Context(), p.ID), "even when it is open")
	again, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err, "the name is free, whatever the kernel has yet to do")
	require.NoError(t, again.Close())
	require.NoError(t, l.DeleteTap(t.Context(), p.ID), "again")
	require.NoError(t, tap.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tap, err = l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	if err := l.DeleteTap(ctx, p.ID); err != nil { // unless the kernel was faster
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, tap.Close())
}

func TestIntegrationLinkThatIsNoTap(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	id := vnic.NewID()
	ns.Run("ip", "link", "add", id.TapName(), "type", "veth", "peer", "name", "q")
	before := ns.State()
	taps, err := l.TapStates(t.Context())
	require.NoError(t, err)
	assert.Empty(t, taps)
	require.ErrorIs(t, l.DeleteTap(t.Context(), id), vnic.ErrConflict)
	assert.Equal(t, before, ns.State())
}

func TestIntegrationWarnings(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	ns.Run("sysctl", "-qew", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0", "net.bridge.bridge-nf-call-arptables=0")
	found, err := l.Warnings(t.Context())
	require.NoError(t, err)
	assert.Empty(t, found)
	if ns.Run("sysctl", "-ne", "net.bridge.bridge-nf-call-iptables") == "" {
		t.Skip("the module br_netfilter is not loaded")
	}
	ns.Run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
	found, err = l.Warnings(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[0], "net.bridge.bridge-nf-call-iptables is 1")
}
