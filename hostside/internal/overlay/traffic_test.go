package overlay_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/vnic"
)

// fails tells whether a program that is run in a namespace fails.
func fails(t *testing.T, ns *netnstest.NS, name string, args ...string) bool {
	t.Helper()
	return ns.Do(func() error { return exec.CommandContext(t.Context(), name, args...).Run() }) != nil
}

// stream is a TCP connection between two pods.
type stream struct {
	a, b net.Conn
}

func connectTCP(t *testing.T, from, to *pod, addr netip.Addr) *stream {
	t.Helper()
	var l net.Listener
	to.In(func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer l.Close()
	s := &stream{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	from.In(func() (err error) {
		s.a, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		return err
	})
	var err error
	s.b, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = s.a.Close(), s.b.Close() })
	return s
}

// carries sends so many bytes over the stream and compares what arrives.
func (s *stream) carries(t *testing.T, size int) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	require.NoError(t, s.a.SetDeadline(deadline))
	require.NoError(t, s.b.SetDeadline(deadline))
	data := bytes.Repeat([]byte("overlay."), size/8)
	sent := make(chan error, 1)
	go func() {
		_, err := s.a.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(s.b, got)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	assert.True(t, bytes.Equal(data, got))
}

// carriesUDP sends a datagram that fills the MTU.
func carriesUDP(t *testing.T, from, to *pod, addr netip.Addr, size int) {
	t.Helper()
	var in net.PacketConn
	to.In(func() (err error) {
		in, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer in.Close()
	require.NoError(t, in.SetDeadline(time.Now().Add(20*time.Second)))
	from.In(func() error {
		out, err := new(net.Dialer).DialContext(t.Context(), "udp", in.LocalAddr().String())
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write(make([]byte, size))
		return err
	})
	n, _, err := in.ReadFrom(make([]byte, 2*underlay))
	require.NoError(t, err)
	assert.Equal(t, size, n)
}

// TestIntegrationTraffic has pods on three hypervisors talk, and looks at what that takes
// of the underlay.
func TestIntegrationTraffic(t *testing.T) {
	for _, tt := range []struct {
		name    string
		family6 bool
		mtu     int
	}{{"over IPv4", false, 1450}, {"over IPv6", true, 1430}} {
		t.Run(tt.name, func(t *testing.T) {
			hs := hypers(t, 3, tt.family6)
			assert.Equal(t, tt.mtu, hs[0].network.MTU)
			pods := mesh(t, hs)
			c := hs[0].watch(t)
			for _, a := range pods {
				for _, b := range pods {
					if a != b {
						a.pings(b)
					}
				}
			}
			full4, full6 := tt.mtu-20-8, tt.mtu-40-8
			for addr, full := range map[netip.Addr]int{pods[1].v4: full4, pods[1].v6: full6} {
				ping := func(size int) []string {
					return []string{"-n", "-c", "1", "-W", "5", "-M", "do", "-s", strconv.Itoa(size), addr.String()}
				}
				pods[0].Run("ping", ping(full)...)
				assert.True(t, fails(t, pods[0].NS, "ping", ping(full+1)...), "one more byte doesn't fit")
				connectTCP(t, pods[0], pods[1], addr).carries(t, 4<<20)
				carriesUDP(t, pods[0], pods[1], addr, full)
			}
			// What nobody has stays here, and so does what is for all.
			for _, nobody := range []string{"10.9.0.99", "fd00:9::99", "ff02::1%eth0"} {
				fails(t, pods[0].NS, "ping", "-n", "-c", "1", "-W", "1", nobody)
			}
			fails(t, pods[0].NS, "ping", "-n", "-b", "-c", "1", "-W", "1", "10.9.0.255")
			fails(t, hs[0].NS, "ping", "-n", "-b", "-c", "1", "-W", "1", "-I", bridge, "10.9.0.255")
			fails(t, hs[0].NS, "ping", "-n", "-c", "1", "-W", "1", "ff02::1%"+bridge)
			// A station that the pod believes in, and nobody has.
			pods[0].Run("ip", "neigh", "add", "10.9.0.98", "lladdr", "02:00:00:00:00:98", "dev", "eth0")
			fails(t, pods[0].NS, "ping", "-n", "-c", "1", "-W", "1", "10.9.0.98")

			kinds := c.stop(t)
			t.Log(kinds)
			assert.Greater(t, kinds["vxlan ip unicast"], 100)
			for kind := range kinds {
				assert.Contains(t, []string{"vxlan ip unicast", "vxlan arp unicast", "vxlan nd unicast", "underlay's own"}, kind)
			}
		})
	}
}

// TestIntegrationQuietFlow lets a pod's knowledge of a remote one grow stale.
func TestIntegrationQuietFlow(t *testing.T) {
	hs := hypers(t, 2, false)
	pods := mesh(t, hs)
	pods[0].pings(pods[1])
	c := hs[0].watch(t)
	for _, state := range []string{"stale", "probe", "none"} {
		for _, a := range []netip.Addr{pods[1].v4, pods[1].v6} {
			if state == "none" {
				pods[0].Run("ip", "neigh", "del", a.String(), "dev", "eth0")
			} else {
				pods[0].Run("ip", "neigh", "replace", a.String(), "lladdr", pods[1].mac.String(), "nud", state, "dev", "eth0")
			}
		}
		pods[0].pings(pods[1])
	}
	kinds := c.stop(t)
	assert.Zero(t, kinds["vxlan arp group"]+kinds["vxlan nd group"], "%v", kinds)
	assert.Zero(t, hs[0].o.Stats().Drift)
}

// TestIntegrationHostReachesRemotePods pings a remote pod from the bridge itself.
func TestIntegrationHostReachesRemotePods(t *testing.T) {
	hs := hypers(t, 2, false)
	pods := mesh(t, hs)
	// Gateways of two hypervisors have the same address: let this one answer to another.
	hs[0].Run("ip", "addr", "add", "10.9.0.2/24", "dev", bridge)
	var mac vnic.MAC
	hs[0].In(func() error {
		l, err := net.InterfaceByName(bridge)
		if err == nil {
			mac = vnic.MAC(l.HardwareAddr)
		}
		return err
	})
	require.NoError(t, hs[1].o.Set(t.Context(), vni, overlay.Remote{
		MAC: mac, Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2")}, Host: hs[0].addr,
	}))
	hs[0].Run("ping", "-n", "-c", "1", "-w", "10", "-I", "10.9.0.2", pods[1].v4.String())
}

// TestIntegrationGuard has the packet filter let through what comes from the tunnel.
func TestIntegrationGuard(t *testing.T) {
	hs := hypers(t, 2, false)
	pods := mesh(t, hs)
	for i, h := range hs {
		h.In(func() error {
			g, err := guard.Open(quiet())
			if err != nil {
				return err
			}
			t.Cleanup(func() { assert.NoError(t, g.Close()) })
			return g.SetPort(t.Context(), guard.Port{Tap: pods[i].port, MAC: pods[i].mac, Addresses: []netip.Addr{pods[i].v4, pods[i].v6}})
		})
	}
	pods[0].pings(pods[1])
	connectTCP(t, pods[1], pods[0], pods[0].v6).carries(t, 1<<20)
	spoofed := []string{"ping", "-n", "-c", "1", "-W", "1", "-I", "10.9.0.66", pods[1].v4.String()}
	pods[0].Run("ip", "addr", "add", "10.9.0.66/24", "dev", "eth0")
	assert.True(t, fails(t, pods[0].NS, spoofed[0], spoofed[1:]...), "it is the filter that is in force")
}

// TestIntegrationRestart has a flow go on while its overlay's daemon is replaced.
func TestIntegrationRestart(t *testing.T) {
	hs := hypers(t, 2, false)
	pods := mesh(t, hs)
	s := connectTCP(t, pods[0], pods[1], pods[1].v4)
	s.carries(t, 1<<20)
	before := hs[0].Run("ip", "-o", "link", "show", vxlan)
	hs[0].restart(t)
	s.carries(t, 1<<20)
	found, err := hs[0].o.Networks(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []overlay.Network{hs[0].overlayNetwork()}, found)
	require.NoError(t, hs[0].o.SetNetwork(t.Context(), hs[0].overlayNetwork()))
	s.carries(t, 1<<20)
	d, err := hs[0].o.Replace(t.Context(), vni, []overlay.Remote{pods[1].remote()})
	require.NoError(t, err)
	assert.Zero(t, d, "nothing had to be touched")
	s.carries(t, 1<<20)
	assert.Equal(t, before, hs[0].Run("ip", "-o", "link", "show", vxlan))
}

// TestIntegrationPodMoves moves a pod from one hypervisor to the other and back.
func TestIntegrationPodMoves(t *testing.T) {
	hs := hypers(t, 2, false)
	pods := mesh(t, hs)
	stays, moves := pods[0], pods[1]
	stays.pings(moves)

	// To the other: there it has to be forgotten before it can join.
	moves.leave()
	require.NoError(t, hs[0].o.Remove(t.Context(), vni, moves.mac))
	moves.join(t, hs[0])
	stays.pings(moves)

	// And back, with the news of it before its tap is gone.
	r := moves.remote()
	r.Host = hs[1].addr
	err := hs[0].o.Set(t.Context(), vni, r)
	require.ErrorContains(t, err, "mac "+moves.mac.String()+" is at a local port of the bridge")
	require.ErrorContains(t, err, "address taken")
	stays.pings(moves)
	moves.leave()
	moves.join(t, hs[1])
	require.Eventually(t, func() bool {
		return !fails(t, stays.NS, "ping", "-n", "-c", "1", "-W", "1", moves.v4.String())
	}, 20*time.Second, time.Millisecond, "the entries take effect once the tap is gone")
	stays.pings(moves)
}
