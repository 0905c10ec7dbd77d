package guard_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/vnic"
)

// connect makes a veth pair: name in ns with the first addresses, and eth0 in the
// other namespace.
func connect(t *testing.T, ns *netnstest.NS, name string, addrs []string, to *netnstest.NS, peerAddrs []string) {
	t.Helper()
	const peer = "eth0"
	ns.Run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", peer)
	require.NoError(t, ns.Do(func() error { return moveLink(peer, to) }))
	for _, end := range []struct {
		ns    *netnstest.NS
		name  string
		addrs []string
	}{{ns, name, addrs}, {to, peer, peerAddrs}} {
		for _, a := range end.addrs {
			end.ns.Run("ip", "addr", "add", a, "dev", end.name, "nodad")
		}
		end.ns.Run("ip", "link", "set", "dev", end.name, "up")
	}
}

// peerOf connects from one namespace to an address in another, and returns who
// the listener takes the caller for.
func peerOf(t *testing.T, from, to *netnstest.NS, addr string) netip.Addr {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var l net.Listener
	to.In(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	defer func() { require.NoError(t, l.Close()) }()
	peer := make(chan netip.Addr, 1)
	go func() {
		defer close(peer)
		if c, err := l.Accept(); err == nil {
			peer <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			_ = c.Close()
		}
	}()
	from.In(func() error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	return <-peer
}

func TestIntegrationMasquerade(t *testing.T) {
	host, pod, other, world := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	// The networks' "bridges" are veths here: the filter knows them by name alone.
	connect(t, host, "br", []string{"10.9.0.1/24", "fd00:9::1/64"}, pod, []string{"10.9.0.2/24", "fd00:9::2/64"})
	connect(t, host, "br2", []string{"10.10.0.1/24", "fd00:a::1/64"}, other, []string{"10.10.0.2/24", "fd00:a::2/64"})
	connect(t, host, "uplink", []string{"192.0.2.1/24", "2001:db8::1/64"}, world, []string{"192.0.2.2/24", "2001:db8::2/64"})
	for ns, gateways := range map[*netnstest.NS][2]string{pod: {"10.9.0.1", "fd00:9::1"}, other: {"10.10.0.1", "fd00:a::1"}} {
		ns.Run("ip", "-4", "route", "add", "default", "via", gateways[0])
		ns.Run("ip", "-6", "route", "add", "default", "via", gateways[1])
	}

	g := openGuard(t, host)
	second := vnic.Network{
		Name: "second", Bridge: "br2",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24"), netip.MustParsePrefix("fd00:a::/64")},
	}
	require.NoError(t, g.SetNetwork(t.Context(), testNetwork()))
	require.NoError(t, g.SetNetwork(t.Context(), second))

	assert.Equal(t, "192.0.2.1", peerOf(t, pod, world, "192.0.2.2").String())
	assert.Equal(t, "2001:db8::1", peerOf(t, pod, world, "2001:db8::2").String())
	assert.Equal(t, "10.9.0.2", peerOf(t, pod, other, "10.10.0.2").String(), "between networks of one host")
	assert.Equal(t, "fd00:9::2", peerOf(t, pod, other, "fd00:a::2").String(), "between networks of one host")
	assert.Equal(t, "10.9.0.2", peerOf(t, pod, host, "10.9.0.1").String(), "to the host")

	again := openGuard(t, host)
	require.NoError(t, again.SetNetwork(t.Context(), second))
	assert.Equal(t, "192.0.2.1", peerOf(t, pod, world, "192.0.2.2").String(), "a new process keeps networks that it isn't told of yet")

	n := testNetwork()
	n.Masquerade = false
	require.NoError(t, again.SetNetwork(t.Context(), n))
	world.Run("ip", "route", "add", "10.9.0.0/24", "via", "192.0.2.1")
	assert.Equal(t, "10.9.0.2", peerOf(t, pod, world, "192.0.2.2").String(), "without masquerading")
}

func TestIntegrationBridgeThatWasDeletedIsMadeAgain(t *testing.T) {
	host, pod, world := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	connect(t, host, "uplink", []string{"192.0.2.1/24", "2001:db8::1/64"}, world, []string{"192.0.2.2/24", "2001:db8::2/64"})
	var links *port.Links
	host.In(func() (err error) {
		links, err = port.New(discard())
		return err
	})
	t.Cleanup(func() { require.NoError(t, links.Close()) })
	g := openGuard(t, host)
	n := testNetwork()
	n.Bridge = ""
	n, err := n.Complete()
	require.NoError(t, err)
	before := host.State()
	set := func() {
		require.NoError(t, links.SetNetwork(t.Context(), n))
		require.NoError(t, g.SetNetwork(t.Context(), n))
	}
	set()
	host.Run("ip", "link", "del", n.Bridge)
	set()

	connect(t, host, "port", nil, pod, []string{"10.9.0.2/24", "fd00:9::2/64"})
	host.Run("ip", "link", "set", "port", "master", n.Bridge)
	pod.Run("ip", "-4", "route", "add", "default", "via", "10.9.0.1")
	pod.Run("ip", "-6", "route", "add", "default", "via", "fd00:9::1")
	assert.Equal(t, "192.0.2.1", peerOf(t, pod, world, "192.0.2.2").String())
	assert.Equal(t, "2001:db8::1", peerOf(t, pod, world, "2001:db8::2").String())

	host.Run("ip", "link", "del", "port")
	require.NoError(t, links.RemoveNetwork(t.Context(), n))
	require.NoError(t, g.RemoveNetwork(t.Context(), n.Name))
	assert.Equal(t, before, host.State())

	set()
	host.Run("ip", "link", "del", n.Bridge)
	require.NoError(t, links.RemoveNetwork(t.Context(), n), "gone already")
	require.NoError(t, g.RemoveNetwork(t.Context(), n.Name))
	assert.Equal(t, before, host.State())
}

// moveLink moves a link of the calling thread's namespace to another one.
func moveLink(name string, to *netnstest.NS) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetNsFd(link, to.FD())
}
