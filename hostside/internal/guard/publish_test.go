package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// serve answers in ns, on a TCP or UDP address, with a name and who asks.
func serve(t *testing.T, ns *netnstest.NS, network, addr, name string) {
	t.Helper()
	answer := func(who net.Addr) []byte {
		return []byte(name + " to " + who.(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr().Unmap().String())
	}
	if strings.HasPrefix(network, "udp") {
		var c net.PacketConn
		ns.In(func() (err error) {
			c, err = (&net.ListenConfig{}).ListenPacket(t.Context(), network, addr)
			return err
		})
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		go func() {
			for buf := make([]byte, 64); ; {
				_, who, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(answer(who), who)
			}
		}()
		return
	}
	var l net.Listener
	ns.In(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), network, addr)
		return err
	})
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(answer(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
}

// ask returns what answers from ns at an address, or "nobody".
func ask(t *testing.T, ns *netnstest.NS, network, addr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return "nobody"
	}
	defer func() { require.NoError(t, c.Close()) }()
	deadline, _ := ctx.Deadline()
	require.NoError(t, c.SetDeadline(deadline))
	buf := make([]byte, 64)
	if _, err := c.Write([]byte("hello")); err != nil {
		return "nobody"
	}
	n, err := c.Read(buf)
	if err != nil {
		return "nobody"
	}
	return string(buf[:n])
}

// town is a host with two networks, the first with two pods, and a world outside.
type town struct {
	host, world, a, b, c *netnstest.NS
	g                    *guard.Guard
}

// bridgeFilter says whether bridged packets pass the hooks of IP, where the kernel can.
func (w *town) bridgeFilter(on string) {
	for _, call := range []string{"iptables", "ip6tables"} {
		w.host.Run("sysctl", "-qew", "net.bridge.bridge-nf-call-"+call+"="+on)
	}
}

func (w *town) plug(t *testing.T, n int, pod *netnstest.NS, bridge, subnet4, subnet6 string) guard.Port {
	t.Helper()
	name := fmt.Sprintf("brf%010d", n)
	ip4, ip6 := fmt.Sprintf("%s.%d", subnet4, n), fmt.Sprintf("%s::%d", subnet6, n)
	connect(t, w.host, name, nil, pod, []string{ip4 + "/24", ip6 + "/64"})
	w.host.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1")
	w.host.Run("ip", "link", "set", "dev", name, "master", bridge)
	pod.Run("ip", "-4", "route", "add", "default", "via", subnet4+".1")
	pod.Run("ip", "-6", "route", "add", "default", "via", subnet6+"::1")
	mac, err := vnic.ParseMAC(strings.Fields(pod.Run("ip", "-br", "link", "show", "eth0"))[2])
	require.NoError(t, err)
	return guard.Port{Tap: name, MAC: mac, Addresses: []netip.Addr{netip.MustParseAddr(ip4), netip.MustParseAddr(ip6)}}
}

func newTown(t *testing.T) (*town, []guard.Port) {
	t.Helper()
	w := &town{host: netnstest.New(t), world: netnstest.New(t), a: netnstest.New(t), b: netnstest.New(t), c: netnstest.New(t)}
	w.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	w.bridgeFilter("0")
	w.g = openGuard(t, w.host)
	second := vnic.Network{
		Name: "second", Bridge: "br2",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24"), netip.MustParsePrefix("fd00:a::/64")},
	}
	for _, n := range []vnic.Network{testNetwork(), second} {
		w.host.Run("ip", "link", "add", "name", n.Bridge, "type", "bridge", "mcast_snooping", "0")
		for _, s := range n.Subnets {
			w.host.Run("ip", "addr", "add", netip.PrefixFrom(s.Addr().Next(), s.Bits()).String(), "dev", n.Bridge, "nodad")
		}
		w.host.Run("ip", "link", "set", "dev", n.Bridge, "up")
		require.NoError(t, w.g.SetNetwork(t.Context(), n))
	}
	connect(t, w.host, "uplink", []string{"192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64"}, w.world, []string{"192.0.2.2/24", "2001:db8::2/64"})
	for _, d := range []string{"10.9.0.0/24", "10.10.0.0/24"} {
		w.world.Run("ip", "route", "add", d, "via", "192.0.2.1")
	}
	ports := []guard.Port{
		w.plug(t, 2, w.a, "br", "10.9.0", "fd00:9"), w.plug(t, 3, w.b, "br", "10.9.0", "fd00:9"),
		w.plug(t, 4, w.c, "br2", "10.10.0", "fd00:a"),
	}
	for _, p := range ports {
		require.NoError(t, w.g.SetPort(t.Context(), p))
	}
	return w, ports
}

func publish(t *testing.T, g *guard.Guard, p guard.Port, mappings ...vnic.PortMapping) {
	t.Helper()
	var err error
	p.Published, err = guard.Publish(mappings, p.Addresses)
	require.NoError(t, err)
	require.NoError(t, g.SetPort(t.Context(), p))
}

func TestIntegrationPublishedPorts(t *testing.T) {
	w, ports := newTown(t)
	before, err := w.g.Counters(t.Context()) // a pod may have sent before its tap was in the bridge
	require.NoError(t, err)
	for _, network := range []string{"tcp", "udp"} {
		serve(t, w.a, network, ":80", "a")
		serve(t, w.c, network, ":8080", "c")
	}
	publish(t, w.g, ports[0], vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.TCP}, vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.UDP},
		vnic.PortMapping{HostPort: 9090, Port: 80, Protocol: vnic.TCP, HostIP: netip.MustParseAddr("192.0.2.9")},
		vnic.PortMapping{HostPort: 9091, Port: 80, Protocol: vnic.TCP, HostIP: netip.MustParseAddr("2001:db8::1")})
	cases := []struct {
		name          string
		from          *netnstest.NS
		network, addr string
		want          string
	}{
		{"from outside", w.world, "tcp", "192.0.2.1:8080", "a to 192.0.2.2"},
		{"from outside, udp", w.world, "udp", "192.0.2.1:8080", "a to 192.0.2.2"},
		{"from outside, ipv6", w.world, "tcp", "[2001:db8::1]:8080", "a to 2001:db8::2"},
		{"from outside, ipv6 udp", w.world, "udp", "[2001:db8::1]:8080", "a to 2001:db8::2"},
		{"of one address", w.world, "tcp", "192.0.2.9:9090", "a to 192.0.2.2"},
		{"of one address, by another", w.world, "tcp", "192.0.2.1:9090", "nobody"},
		{"of one address, ipv6", w.world, "tcp", "[2001:db8::1]:9091", "a to 2001:db8::2"},
		{"of another protocol", w.world, "udp", "192.0.2.9:9090", "nobody"},
		{"not for the host", w.world, "tcp", "10.10.0.4:8080", "c to 192.0.2.2"},
		{"from the host", w.host, "tcp", "192.0.2.1:8080", "a to 192.0.2.1"},
		{"from the host, udp", w.host, "udp", "192.0.2.1:8080", "a to 192.0.2.1"},
		{"from the host, ipv6", w.host, "tcp", "[2001:db8::1]:8080", "a to 2001:db8::1"},
		{"from the host by its loopback", w.host, "tcp", "127.0.0.1:8080", "nobody"},
		{"from the host by its loopback, ipv6", w.host, "tcp", "[::1]:8080", "nobody"},
		{"from a neighbour", w.b, "tcp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from a neighbour, udp", w.b, "udp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from a neighbour, ipv6", w.b, "tcp", "[2001:db8::1]:8080", "a to fd00:9::1"},
		{"from a neighbour by the gateway", w.b, "tcp", "10.9.0.1:8080", "a to 10.9.0.1"},
		{"from itself", w.a, "tcp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from itself, udp", w.a, "udp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from itself, ipv6", w.a, "tcp", "[2001:db8::1]:8080", "a to fd00:9::1"},
		{"from another network", w.c, "tcp", "192.0.2.1:8080", "a to 10.10.0.4"},
		{"from another network, ipv6 udp", w.c, "udp", "[2001:db8::1]:8080", "a to fd00:a::4"},
		{"directly", w.c, "tcp", "10.9.0.2:80", "a to 10.10.0.4"},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, ask(t, tt.from, tt.network, tt.addr)) })
	}
	w.bridgeFilter("1")
	for _, tt := range cases {
		if tt.from != w.a { // the kernel doesn't send a frame back by the port that it came by
			t.Run("through the bridge filter, "+tt.name, func(t *testing.T) {
				got := ask(t, tt.from, tt.network, tt.addr)
				if tt.from == w.b { // translated in the bridge, so that answers are, too
					got = strings.NewReplacer("10.9.0.3", "10.9.0.1", "fd00:9::3", "fd00:9::1").Replace(got)
				}
				assert.Equal(t, tt.want, got)
			})
		}
	}
	counters, err := w.g.Counters(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before[guard.ReasonStray], counters[guard.ReasonStray], "all of it passed the bridge")
	assert.Zero(t, counters[guard.ReasonIPv4], "answers have the pod's own address")
}

func TestIntegrationPublishedPortsComeAndGo(t *testing.T) {
	w, ports := newTown(t)
	serve(t, w.a, "tcp", ":80", "a")
	serve(t, w.b, "tcp", ":80", "b")
	bare := w.host.Run("nft", "-s", "list", "ruleset")
	web := vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.TCP}
	more := vnic.PortMapping{HostPort: 8081, Port: 80, Protocol: vnic.TCP}
	require.Equal(t, "nobody", ask(t, w.world, "tcp", "192.0.2.1:8080"))

	publish(t, w.g, ports[0], web)
	publish(t, w.g, ports[1], more)
	assert.Equal(t, "a to 192.0.2.2", ask(t, w.world, "tcp", "192.0.2.1:8080"))
	assert.Equal(t, "b to 192.0.2.2", ask(t, w.world, "tcp", "192.0.2.1:8081"))
	_, err := guard.Publish([]vnic.PortMapping{{HostPort: 1, Port: 1, Protocol: vnic.TCP, HostIP: netip.MustParseAddr("2001:db8::1")}}, ports[0].Addresses[:1])
	require.ErrorIs(t, err, vnic.ErrInvalid)

	before := w.host.Run("nft", "list", "ruleset")
	again := openGuard(t, w.host)
	assert.Equal(t, w.g.Ports(), again.Ports())
	assert.Equal(t, before, w.host.Run("nft", "list", "ruleset"), "a new process keeps them")
	assert.Equal(t, "b to 10.9.0.1", ask(t, w.a, "tcp", "192.0.2.1:8081"), "hairpins too")

	publish(t, again, ports[0])
	publish(t, again, ports[1], web)
	assert.Equal(t, "b to 192.0.2.2", ask(t, w.world, "tcp", "192.0.2.1:8080"), "another's now")
	assert.Equal(t, "nobody", ask(t, w.world, "tcp", "192.0.2.1:8081"))
	require.NoError(t, again.RemovePort(t.Context(), ports[1].Tap))
	assert.Equal(t, "nobody", ask(t, w.world, "tcp", "192.0.2.1:8080"))
	require.NoError(t, again.SetPort(t.Context(), ports[1]))
	last := openGuard(t, w.host)
	assert.Equal(t, bare, w.host.Run("nft", "-s", "list", "ruleset"), "nothing is left")
	w.g = last
}

// A guest hands over frames of up to 64 KiB. A limit that is low must not keep
// them out for good.
func TestIntegrationLargeFramesPassASmallLimit(t *testing.T) {
	w, ports := newTown(t)
	ports[0].Limit = guard.LimitOf(vnic.Rate{Bits: 800_000})
	require.NoError(t, w.g.SetPort(t.Context(), ports[0]))
	again := openGuard(t, w.host)
	assert.Equal(t, w.g.Ports(), again.Ports(), "a new process knows it")

	var l net.Listener
	w.host.In(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "10.9.0.1:80")
		return err
	})
	defer func() { require.NoError(t, l.Close()) }()
	var c net.Conn
	w.a.In(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", "10.9.0.1:80")
		return err
	})
	defer func() { require.NoError(t, c.Close()) }()
	sink, err := l.Accept()
	require.NoError(t, err)
	defer func() { require.NoError(t, sink.Close()) }()
	deadline := time.Now().Add(30 * time.Second)
	require.NoError(t, errors.Join(c.SetDeadline(deadline), sink.SetDeadline(deadline)))
	const size = 250_000
	go func() { _, _ = c.Write(make([]byte, size)) }()
	_, err = io.CopyN(io.Discard, sink, size)
	require.NoError(t, err)
	counters, err := w.g.Counters(t.Context())
	require.NoError(t, err)
	assert.NotZero(t, counters[guard.ReasonRate])
}

func TestLimitOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate vnic.Rate
		want guard.Limit
	}{
		{"none", vnic.Rate{}, guard.Limit{}},
		{"a second of it is enough", vnic.Rate{Bits: 8_000_000}, guard.Limit{Rate: 1_000_000}},
		{"with a burst", vnic.Rate{Bits: 8_000_000, Burst: 16_000_000}, guard.Limit{Rate: 1_000_000, Burst: 1_000_000}},
		{"less than a frame", vnic.Rate{Bits: 8_000}, guard.Limit{Rate: 1000, Burst: 66<<10 - 1000}},
		{"largest", vnic.Rate{Bits: 100_000_000_000, Burst: vnic.MaxRate}, guard.Limit{Rate: 12_500_000_000, Burst: 1<<32 - 1}},
		{"faster than any tap", vnic.Rate{Bits: vnic.MaxRate}, guard.Limit{}},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, guard.LimitOf(tt.rate)) })
	}
}

// BenchmarkIntegrationPublish is what ports cost an attach, with many others.
func BenchmarkIntegrationPublish(b *testing.B) {
	for _, others := range []int{0, 500} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			ns := netnstest.New(b)
			g := openGuard(b, ns)
			for i := range others {
				require.NoError(b, g.SetPort(b.Context(), withPorts(b, i)))
			}
			p := withPorts(b, 9999)
			for b.Loop() {
				if err := g.SetPort(b.Context(), p); err != nil {
					b.Fatal(err)
				}
				if err := g.RemovePort(b.Context(), p.Tap); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func withPorts(tb testing.TB, i int) guard.Port {
	tb.Helper()
	p := portNumber(i)
	var err error
	p.Published, err = guard.Publish([]vnic.PortMapping{{HostPort: uint16(10000 + i), Port: 80, Protocol: vnic.TCP}}, p.Addresses)
	require.NoError(tb, err)
	return p
}
