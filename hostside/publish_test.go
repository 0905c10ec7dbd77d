package hostside

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// newPod is a namespace behind a plugged vNIC: what a VM and its agent would do
// with the device. Frames go to and fro between the tap's descriptor and a tap
// in the namespace.
func newPod(t *testing.T, y *hypervisor, p vnic.Plug) *netnstest.NS {
	t.Helper()
	ns := netnstest.New(t)
	var eth0 *os.File
	ns.In(func() error {
		files, err := rtnl.OpenTap("eth0", 1)
		if err == nil {
			eth0 = files[0]
		}
		return err
	})
	ns.Run("ip", "link", "set", "eth0", "address", p.MAC.String())
	ns.Run("ip", "link", "set", "eth0", "up")
	for i, gateway := range []string{"10.9.0.1", "fd00:9::1"} {
		bits := []string{"/24", "/64"}[i]
		ns.Run("ip", "addr", "add", p.Addresses[i].String()+bits, "dev", "eth0", "nodad")
		ns.Run("ip", "route", "add", "default", "via", gateway)
	}
	y.mu.Lock()
	tap := y.devices[p.ID].files[0]
	y.mu.Unlock()
	var pumps sync.WaitGroup
	pump := func(to, from *os.File) {
		for buf := make([]byte, 70<<10); ; {
			n, err := from.Read(buf)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil {
				_, err = to.Write(buf[:n])
			}
			if errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}
	pumps.Go(func() { pump(eth0, tap) })
	pumps.Go(func() { pump(tap, eth0) })
	t.Cleanup(func() {
		require.NoError(t, eth0.Close())
		_ = tap.Close() // an Unplug may have been first
		pumps.Wait()
	})
	return ns
}

// newWorld is a namespace beyond the host: 192.0.2.2, next to the host's 192.0.2.1.
func newWorld(t *testing.T, host *netnstest.NS) *netnstest.NS {
	t.Helper()
	world := netnstest.New(t)
	host.Run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0")
	host.In(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(link, world.FD())
	})
	for _, end := range []struct {
		ns        *netnstest.NS
		name, own string
	}{{host, "uplink", "1"}, {world, "eth0", "2"}} {
		end.ns.Run("ip", "addr", "add", "192.0.2."+end.own+"/24", "dev", end.name)
		end.ns.Run("ip", "addr", "add", "2001:db8::"+end.own+"/64", "dev", end.name, "nodad")
		end.ns.Run("ip", "link", "set", end.name, "up")
	}
	return world
}

// serveName answers with a name, on a TCP and UDP port of ns.
func serveName(t *testing.T, ns *netnstest.NS, address, name string) {
	t.Helper()
	var l net.Listener
	var c net.PacketConn
	ns.In(func() (err error) {
		if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address); err == nil {
			c, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", address)
		}
		return err
	})
	t.Cleanup(func() { require.NoError(t, errors.Join(l.Close(), c.Close())) })
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = s.Write([]byte(name))
			_ = s.Close()
		}
	}()
	go func() {
		for buf := make([]byte, 64); ; {
			_, who, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name), who)
		}
	}()
}

func dial(t *testing.T, ns *netnstest.NS, network, address string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// answer returns who answers at an address, or "".
func answer(t *testing.T, ns *netnstest.NS, network, address string) string {
	t.Helper()
	c, err := dial(t, ns, network, address)
	if err != nil {
		return ""
	}
	defer func() { require.NoError(t, c.Close()) }()
	return hear(t, c, 2*time.Second)
}

// hear sends something and returns the answer, or "".
func hear(t *testing.T, c net.Conn, limit time.Duration) string {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(limit)))
	if _, err := c.Write([]byte("hello")); err != nil {
		return ""
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

var (
	web    = vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.TCP}
	webUDP = vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.UDP}
)

func plugWith(t *testing.T, h *Host, p vnic.Plug, ports ...vnic.PortMapping) {
	t.Helper()
	p.Ports = ports
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
}

// listens tells whether a program of the host could have a TCP port.
func listens(t *testing.T, ns *netnstest.NS, address string) bool {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", address)
		return err
	})
	if err == nil {
		require.NoError(t, l.Close())
	}
	return err == nil
}

func TestIntegrationPlugPublishesPorts(t *testing.T) {
	h, y, ns := newTestHost(t)
	world := newWorld(t, ns)
	before := ns.State()
	ns.Run("sysctl", "-qw", "net.ipv4.ip_forward=0")
	p := testPlug()
	plugWith(t, h, p, web, webUDP)
	serveName(t, newPod(t, y, p), ":80", "pod")
	for _, address := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
		assert.Equal(t, "pod", answer(t, world, "tcp", address), address)
		assert.Equal(t, "pod", answer(t, world, "udp", address), address)
	}
	assert.False(t, listens(t, ns, ":8080"), "nobody else can have it")

	more := vnic.PortMapping{HostPort: 8081, Port: 80, Protocol: vnic.TCP}
	plugWith(t, h, p, more)
	assert.Equal(t, "pod", answer(t, world, "tcp", "192.0.2.1:8081"))
	assert.Empty(t, answer(t, world, "tcp", "192.0.2.1:8080"))
	assert.True(t, listens(t, ns, ":8080"), "given back")

	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID), "again")
	assert.True(t, listens(t, ns, ":8081"), "given back")
	assert.Equal(t, before, ns.State())
	assert.NotContains(t, ns.Run("nft", "list", "ruleset"), p.ID.TapName())
}

func TestIntegrationPublishedPortsThatAreTaken(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	serveName(t, ns, "127.0.0.1:9000", "host")
	taken := vnic.PortMapping{HostPort: 9000, Port: 80, Protocol: vnic.TCP}
	first, second := testPlug(), testPlug()
	second.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd00:9::3")}
	for _, tt := range []struct {
		name string
		port vnic.PortMapping
		want error
		text string
	}{
		{"by a program", taken, vnic.ErrPortTaken, "port 0.0.0.0:9000/tcp is another program's; choose another"},
		{"no address of the host", vnic.PortMapping{HostIP: netip.MustParseAddr("203.0.113.9"), HostPort: 1, Port: 1, Protocol: vnic.TCP}, vnic.ErrInvalid, "has no address 203.0.113.9"},
		{"no port", vnic.PortMapping{Port: 1, Protocol: vnic.TCP}, vnic.ErrInvalid, "port 0 is none"},
		{"no protocol", vnic.PortMapping{HostPort: 1, Port: 1}, vnic.ErrInvalid, "is not tcp, udp or sctp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := first
			p.Ports = []vnic.PortMapping{web, tt.port}
			_, err := h.Plug(t.Context(), p)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
			assert.Equal(t, before, ns.State(), "all is undone")
			assert.True(t, listens(t, ns, ":8080"), "and given back")
		})
	}

	y.mu.Lock()
	y.plugErr = errors.New("device_add refused")
	y.mu.Unlock()
	refused := first
	refused.Ports = []vnic.PortMapping{web}
	_, err := h.Plug(t.Context(), refused)
	require.ErrorContains(t, err, "device_add refused")
	assert.Equal(t, before, ns.State(), "all is undone")
	assert.True(t, listens(t, ns, ":8080"), "and given back")
	assert.NotContains(t, ns.Run("nft", "list", "table", "inet", "brfuse"), "8080")

	plugWith(t, h, first, web)
	world := newWorld(t, ns)
	serveName(t, newPod(t, y, first), ":80", "first")
	second.Ports = []vnic.PortMapping{web}
	_, err = h.Plug(t.Context(), second)
	require.ErrorIs(t, err, vnic.ErrPortTaken)
	require.ErrorContains(t, err, "is published for vnic "+string(first.ID))

	first.Ports = []vnic.PortMapping{taken}
	_, err = h.Plug(t.Context(), first)
	require.ErrorIs(t, err, vnic.ErrPortTaken)
	assert.Equal(t, "first", answer(t, world, "tcp", "192.0.2.1:8080"), "a change that fails changes nothing")
	assert.False(t, listens(t, ns, ":8080"))
}

// A daemon that comes back finds what is in force, and its ports are its own.
func TestIntegrationPublishedPortsOutliveTheDaemon(t *testing.T) {
	ns, y := netnstest.New(t), newHypervisor()
	t.Cleanup(y.die)
	var h *Host
	ns.In(func() (err error) {
		h, err = newHost(Config{Log: slog.New(slog.DiscardHandler)}, y.dial)
		return err
	})
	require.NoError(t, h.AddVM(t.Context(), testVM))
	require.NoError(t, h.SetNetwork(t.Context(), testNet))
	world := newWorld(t, ns)
	p := testPlug()
	p.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: 50_000_000}, Egress: vnic.Rate{Bits: 50_000_000}}
	plugWith(t, h, p, web)
	serveName(t, newPod(t, y, p), ":80", "pod")
	state := func() string {
		return ns.Run("nft", "-s", "list", "ruleset") + ns.Run("tc", "qdisc", "show", "dev", p.ID.TapName())
	}
	before := state()
	require.NoError(t, h.Close())
	assert.Equal(t, "pod", answer(t, world, "tcp", "192.0.2.1:8080"), "without a daemon")
	assert.Equal(t, before, state())

	again := openTestHost(t, ns, y)
	assert.Equal(t, "pod", answer(t, world, "tcp", "192.0.2.1:8080"))
	assert.False(t, listens(t, ns, ":8080"), "its socket is back before anyone plugs")
	assert.Equal(t, before, state())
	require.NoError(t, again.AddVM(t.Context(), testVM))
	require.NoError(t, again.SetNetwork(t.Context(), testNet))
	plugWith(t, again, p, web)
	assert.Equal(t, before, state(), "a repeated plug changes nothing")

	require.NoError(t, again.Unplug(t.Context(), "vm", p.ID))
	assert.True(t, listens(t, ns, ":8080"))
}

// One client socket goes on sending while ports come, move and go: the kernel
// must not go on translating as it did for the socket's first packet.
func TestIntegrationConnectionsFollowPublishedPorts(t *testing.T) {
	h, y, ns := newTestHost(t)
	world := newWorld(t, ns)
	a, b := testPlug(), testPlug()
	b.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd00:9::3")}
	plugWith(t, h, a)
	plugWith(t, h, b)
	serveName(t, newPod(t, y, a), ":80", "a")
	serveName(t, newPod(t, y, b), ":80", "b")
	elsewhere, err := dial(t, world, "udp", "192.0.2.1:9999")
	require.NoError(t, err)
	defer func() { require.NoError(t, elsewhere.Close()) }()
	serveName(t, ns, "192.0.2.1:9999", "host")
	for _, address := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
		t.Run(address, func(t *testing.T) {
			c, err := dial(t, world, "udp", address)
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Close()) }()
			await := func(want, why string) {
				t.Helper()
				require.Eventually(t, func() bool { return hear(t, c, 200*time.Millisecond) == want }, 5*time.Second, time.Millisecond, why)
			}
			await("", "published by nobody")
			plugWith(t, h, a, webUDP)
			await("a", "published, also for who asked before")
			plugWith(t, h, a)
			await("", "no longer published")
			plugWith(t, h, b, webUDP)
			await("b", "published by another")
			plugWith(t, h, b, webUDP)
			await("b", "nothing changed")
			plugWith(t, h, b)
		})
	}
	assert.Equal(t, "host", hear(t, elsewhere, time.Second), "others are left alone")

	plugWith(t, h, a, web)
	c, err := dial(t, world, "tcp", "192.0.2.1:8080")
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	flows := func() string {
		return strings.TrimSpace(ns.Run("sh", "-c", "grep -c 'dport=8080' /proc/thread-self/net/nf_conntrack || true"))
	}
	if _, err := os.Stat("/proc/net/nf_conntrack"); err == nil {
		require.NotEqual(t, "0", flows())
		require.NoError(t, h.Unplug(t.Context(), "vm", a.ID))
		assert.Equal(t, "0", flows(), "nothing lingers")
	}
}

func TestIntegrationProbes(t *testing.T) {
	ns := netnstest.New(t)
	before := ns.State() + ns.Run("tc", "qdisc")
	ns.In(Probe)
	ns.In(ProbePublish)
	ns.In(ProbeBandwidth)
	assert.Equal(t, before, ns.State()+ns.Run("tc", "qdisc"))
}
