package guard_test

import (
	"fmt"
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

// The host's own addresses in the first network, and a pod's there that is on another
// host.
const (
	own4, own6       = "10.9.0.254", "fd00:9::fe"
	remote4, remote6 = "10.9.0.50", "fd00:9::50"
)

// cluster is a town with a pod on another host, which is behind a port of the first
// bridge and knows no way but to its own segment.
type cluster struct {
	*town
	ports  []guard.Port
	remote *netnstest.NS
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	w, ports := newTown(t)
	c := &cluster{w, ports, netnstest.New(t)}
	w.host.Run("ip", "addr", "add", own4+"/24", "dev", "br")
	w.host.Run("ip", "addr", "add", own6+"/64", "dev", "br", "nodad")
	connect(t, w.host, "bfx-net", nil, c.remote, []string{remote4 + "/24", remote6 + "/64"})
	w.host.Run("sysctl", "-qw", "net.ipv6.conf.bfx-net.disable_ipv6=1")
	w.host.Run("ip", "link", "set", "dev", "bfx-net", "master", "br")
	for name, ns := range map[string]*netnstest.NS{"a": w.a, "b": w.b, "c": w.c, "remote": c.remote} {
		for _, network := range []string{"tcp", "udp"} {
			serve(t, ns, network, ":80", name)
		}
	}
	return c
}

// Targets by their name in tests.
var targets = map[string]guard.Target{
	"a":       {To: netip.MustParseAddrPort("10.9.0.2:80"), Local: true},
	"a6":      {To: netip.MustParseAddrPort("[fd00:9::2]:80"), Local: true},
	"b":       {To: netip.MustParseAddrPort("10.9.0.3:80"), Local: true},
	"b6":      {To: netip.MustParseAddrPort("[fd00:9::3]:80"), Local: true},
	"remote":  {To: netip.AddrPortFrom(netip.MustParseAddr(remote4), 80)},
	"remote6": {To: netip.AddrPortFrom(netip.MustParseAddr(remote6), 80)},
}

func service(protocol string, port uint16, names ...string) guard.Service {
	s := guard.Service{
		Name: fmt.Sprintf("%d-%s", port, protocol), Protocol: protocol, Port: port,
		Source4: netip.MustParseAddr(own4), Source6: netip.MustParseAddr(own6),
	}
	for _, name := range names {
		s.Targets = append(s.Targets, targets[name])
	}
	return s
}

// set sets services, and returns what that came to when it was without problems.
func (c *cluster) set(t *testing.T, services ...guard.Service) guard.Change {
	t.Helper()
	change, err := c.g.SetServices(t.Context(), services)
	require.NoError(t, err)
	require.Empty(t, change.Problems)
	return change
}

func TestIntegrationServices(t *testing.T) {
	c := newCluster(t)
	var services []guard.Service
	for _, protocol := range []string{vnic.TCP, vnic.UDP} {
		services = append(services, service(protocol, 8080, "a", "a6"), service(protocol, 8081, "remote", "remote6"), service(protocol, 8082))
	}
	c.set(t, services...)
	cases := []struct {
		name          string
		from          *netnstest.NS
		network, addr string
		want          string
	}{
		{"from outside", c.world, "tcp", "192.0.2.1:8080", "a to 192.0.2.2"},
		{"from outside, udp", c.world, "udp", "192.0.2.9:8080", "a to 192.0.2.2"},
		{"from outside, ipv6", c.world, "tcp", "[2001:db8::1]:8080", "a to 2001:db8::2"},
		{"from outside, ipv6 udp", c.world, "udp", "[2001:db8::1]:8080", "a to 2001:db8::2"},
		{"from outside, by the gateway", c.world, "tcp", "10.9.0.1:8080", "a to 192.0.2.2"},
		{"from outside, not for the host", c.world, "tcp", "10.10.0.4:8080", "nobody"},
		{"from outside, without targets", c.world, "tcp", "192.0.2.1:8082", "nobody"},
		{"from outside to another host", c.world, "tcp", "192.0.2.1:8081", "remote to " + own4},
		{"from outside to another host, udp", c.world, "udp", "192.0.2.1:8081", "remote to " + own4},
		{"from outside to another host, ipv6", c.world, "tcp", "[2001:db8::1]:8081", "remote to " + own6},
		{"from outside to another host, ipv6 udp", c.world, "udp", "[2001:db8::1]:8081", "remote to " + own6},
		{"from the host", c.host, "tcp", "192.0.2.1:8080", "a to 192.0.2.1"},
		{"from the host, ipv6 udp", c.host, "udp", "[2001:db8::1]:8080", "a to 2001:db8::1"},
		{"from the host by its loopback", c.host, "tcp", "127.0.0.1:8080", "nobody"},
		{"from the host to another host", c.host, "tcp", "192.0.2.1:8081", "remote to " + own4},
		{"from the host to another host, udp", c.host, "udp", "192.0.2.1:8081", "remote to " + own4},
		{"from the host to another host, ipv6", c.host, "tcp", "[2001:db8::1]:8081", "remote to " + own6},
		{"from a neighbour", c.b, "tcp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from a neighbour by the gateway, udp", c.b, "udp", "10.9.0.1:8080", "a to 10.9.0.1"},
		{"from a neighbour, ipv6", c.b, "tcp", "[2001:db8::1]:8080", "a to fd00:9::"},
		{"from a pod to another host", c.b, "tcp", "192.0.2.1:8081", "remote to " + own4},
		{"from a pod to another host by the gateway, udp", c.b, "udp", "10.9.0.1:8081", "remote to " + own4},
		{"from a pod to another host, ipv6", c.b, "tcp", "[2001:db8::1]:8081", "remote to " + own6},
		{"from another host's pod", c.remote, "tcp", own4 + ":8080", "a to 10.9.0.1"},
		{"from another host's pod to itself", c.remote, "tcp", own4 + ":8081", "remote to " + own4},
		{"from another host's pod to itself, ipv6 udp", c.remote, "udp", "[" + own6 + "]:8081", "remote to " + own6},
		{"from itself", c.a, "tcp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from itself, udp", c.a, "udp", "192.0.2.1:8080", "a to 10.9.0.1"},
		{"from itself, ipv6", c.a, "tcp", "[2001:db8::1]:8080", "a to fd00:9::"},
		{"from another network", c.c, "tcp", "192.0.2.1:8080", "a to 10.10.0.4"},
		{"from another network to another host", c.c, "udp", "192.0.2.1:8081", "remote to " + own4},
		{"from another network to another host, ipv6", c.c, "tcp", "[2001:db8::1]:8081", "remote to " + own6},
		{"directly", c.b, "tcp", remote4 + ":80", "remote to 10.9.0.3"},
	}
	for _, filter := range []string{"0", "1"} {
		c.bridgeFilter(filter)
		for _, tt := range cases {
			if self := tt.from == c.a || strings.Contains(tt.name, "to itself"); self && filter == "1" {
				continue // the kernel doesn't send a frame back by the port that it came by
			}
			t.Run("bridge filter "+filter+", "+tt.name, func(t *testing.T) {
				got := ask(t, tt.from, tt.network, tt.addr)
				if filter == "1" { // translated in the bridge, so that answers are, too
					got = strings.NewReplacer("a to 10.9.0.3", "a to 10.9.0.1", "a to "+remote4, "a to 10.9.0.1").Replace(got)
				}
				if strings.HasSuffix(tt.want, "::") { // which of the bridge's addresses, the kernel chooses
					assert.True(t, strings.HasPrefix(got, tt.want), got)
					return
				}
				assert.Equal(t, tt.want, got)
			})
		}
	}
	counters, err := c.g.Counters(t.Context())
	require.NoError(t, err)
	for _, reason := range []guard.Reason{guard.ReasonIPv4, guard.ReasonIPv6, guard.ReasonDestination} {
		assert.Zero(t, counters[reason], reason)
	}
}

// Of n connections to k targets, each gets n/k, with a standard deviation of
// sqrt(n/k (1 - 1/k)). The bounds here are five of these.
func TestIntegrationServicesAreBalanced(t *testing.T) {
	c := newCluster(t)
	c.set(t, service(vnic.TCP, 8080, "a", "b", "remote", "a6", "b6", "remote6"), service(vnic.UDP, 8080, "a", "b", "remote"))
	const n, least, most = 600, 142, 258
	for _, tt := range []struct{ network, addr string }{{"tcp", "192.0.2.1:8080"}, {"udp", "192.0.2.1:8080"}, {"tcp", "[2001:db8::1]:8080"}} {
		t.Run(tt.network+" "+tt.addr, func(t *testing.T) {
			got := map[string]int{}
			for range n {
				name, _, _ := strings.Cut(ask(t, c.world, tt.network, tt.addr), " ")
				got[name]++
			}
			t.Log(got)
			for _, name := range []string{"a", "b", "remote"} {
				assert.GreaterOrEqual(t, got[name], least, name)
				assert.LessOrEqual(t, got[name], most, name)
			}
			assert.Len(t, got, 3, "nobody else")
		})
	}
}

// talk sends by a connection that was made before, and returns what answers.
func talk(t *testing.T, c net.Conn) string {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(3*time.Second)))
	buf := make([]byte, 64)
	_, err := c.Write([]byte("hello"))
	require.NoError(t, err)
	n, err := c.Read(buf)
	if err != nil {
		return "nobody"
	}
	return string(buf[:n])
}

func (c *cluster) dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	var conn net.Conn
	c.world.In(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 3 * time.Second}).DialContext(t.Context(), network, addr)
		return err
	})
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The kernel looks maps up in their latest state. For a packet that was on its way
// through the rules when targets went, an index may have gone.
func TestIntegrationServicesAnswerWithoutAnIndex(t *testing.T) {
	c := newCluster(t)
	c.set(t, service(vnic.TCP, 8080, "a", "b", "remote"))
	c.host.Run("nft", "delete element inet brfuse targets4 { tcp . 8080 . 1, tcp . 8080 . 2 }")
	for range 30 {
		require.Equal(t, "a to 192.0.2.2", ask(t, c.world, "tcp", "192.0.2.1:8080"))
	}
}

func TestIntegrationServicesComeAndGo(t *testing.T) {
	c := newCluster(t)
	bare := c.host.Run("nft", "-s", "list", "ruleset")
	services := []guard.Service{service(vnic.TCP, 8080, "a", "remote", "a6"), service(vnic.UDP, 53, "b"), service(vnic.TCP, 8081, "remote6", "b6", "a6")}
	c.set(t, services...)
	before := c.host.Run("nft", "list", "ruleset")
	again := openGuard(t, c.host)
	assert.Equal(t, []guard.Service{
		service(vnic.TCP, 8080, "a", "remote", "a6"), service(vnic.TCP, 8081, "a6", "b6", "remote6"), service(vnic.UDP, 53, "b"),
	}, withSources(again.Services()))
	assert.Equal(t, before, c.host.Run("nft", "list", "ruleset"), "a new process keeps them")
	c.g = again
	assert.Zero(t, c.forget(t, c.set(t, services...)), "and changes nothing")
	assert.Equal(t, before, c.host.Run("nft", "list", "ruleset"))

	before = c.host.Run("nft", "-s", "list", "ruleset")
	c.host.Run("nft", "flush ruleset")
	require.Eventually(t, func() bool {
		return c.host.Run("nft", "-s", "list", "ruleset") == before
	}, 5*time.Second, time.Millisecond, "restored")
	c.host.Run("nft", "flush map inet brfuse targets4")
	c.set(t, service(vnic.TCP, 8080, "remote"))
	assert.Equal(t, "remote to "+own4, ask(t, c.world, "tcp", "192.0.2.1:8080"), "restored")

	c.set(t)
	last := openGuard(t, c.host)
	assert.Equal(t, bare, c.host.Run("nft", "-s", "list", "ruleset"), "nothing is left")
	c.g = last
}

// withSources gives services the sources that they don't use and the filter doesn't know.
func withSources(services []guard.Service) []guard.Service {
	for i := range services {
		services[i].Source4, services[i].Source6 = netip.MustParseAddr(own4), netip.MustParseAddr(own6)
	}
	return services
}

func TestIntegrationServicesAlone(t *testing.T) {
	ns := netnstest.New(t)
	before := ns.State()
	g := openGuard(t, ns)
	_, err := g.SetServices(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, before, ns.State(), "none takes no table")
	_, err = g.SetServices(t.Context(), []guard.Service{service(vnic.TCP, 80, "a")})
	require.NoError(t, err)
	require.NoError(t, g.SetPort(t.Context(), portNumber(1)))
	require.NoError(t, g.RemovePort(t.Context(), portNumber(1).Tap))
	require.NoError(t, g.RemoveNetwork(t.Context(), "never was"))
	assert.NotEqual(t, before, ns.State(), "the tables stay for the service")
	_, err = g.SetServices(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, before, ns.State())
	ns.In(guard.ProbeServices)
	assert.Equal(t, before, ns.State())
}

func TestIntegrationPublishedPortsComeBeforeServices(t *testing.T) {
	c := newCluster(t)
	c.set(t, service(vnic.TCP, 8080, "a"), service(vnic.UDP, 8080, "a"))
	publish(t, c.g, c.ports[1], vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.TCP})
	assert.Equal(t, "b to 192.0.2.2", ask(t, c.world, "tcp", "192.0.2.1:8080"))
	assert.Equal(t, "a to 192.0.2.2", ask(t, c.world, "udp", "192.0.2.1:8080"), "another protocol")
	change, err := c.g.SetServices(t.Context(), []guard.Service{service(vnic.TCP, 8080, "a"), service(vnic.UDP, 8080, "a")})
	require.NoError(t, err)
	require.Len(t, change.Problems, 1)
	require.ErrorIs(t, change.Problems[0], vnic.ErrPortTaken)
	require.ErrorContains(t, change.Problems[0], "port 0.0.0.0:8080/tcp of service 8080-tcp is published for the vNIC of "+c.ports[1].Tap)
	publish(t, c.g, c.ports[1])
	assert.Equal(t, "a to 192.0.2.2", ask(t, c.world, "tcp", "192.0.2.1:8080"))
}

// BenchmarkIntegrationSetServices is a target that comes and goes beside many, and all
// of them at once.
func BenchmarkIntegrationSetServices(b *testing.B) {
	for _, size := range []struct{ services, targets int }{{1, 3}, {100, 100}, {100, 1000}} {
		g := openGuard(b, netnstest.New(b))
		var all []guard.Service
		for i := range size.services {
			s := service(vnic.TCP, uint16(10000+i))
			for j := range size.targets {
				a := netip.AddrFrom4([4]byte{10, 9, byte(j >> 8), byte(j)})
				s.Targets = append(s.Targets, guard.Target{To: netip.AddrPortFrom(a, 80), Local: j%2 == 0})
			}
			all = append(all, s)
		}
		set := func(b *testing.B) {
			b.Helper()
			if _, err := g.SetServices(b.Context(), all); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("services=%d/targets=%d/", size.services, size.targets)
		b.Run(name+"all", func(b *testing.B) {
			for b.Loop() {
				set(b)
				b.StopTimer()
				_, err := g.SetServices(b.Context(), nil)
				require.NoError(b, err)
				b.StartTimer()
			}
		})
		set(b)
		b.Run(name+"one target", func(b *testing.B) {
			whole := all[0].Targets
			for b.Loop() {
				all[0].Targets = whole[1:]
				set(b)
				all[0].Targets = whole
				set(b)
			}
		})
	}
}
