package netpath

import (
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

const dockerRules = `
table ip nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 8080 counter dnat to 10.55.0.2:80; }
	chain SOURCES { ct original ip daddr 10.66.0.9 masquerade; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 10.55.0.0/24 oifname != "docker0" counter masquerade; jump SOURCES; }
}
table ip filter {
	chain DOCKER-USER { counter return; }
	chain DOCKER { counter drop; }
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		counter jump DOCKER-USER
		ct state established,related counter accept
		iifname "docker0" counter accept
		oifname "docker0" jump DOCKER
	}
	chain early { type filter hook forward priority -150; }
}
table bridge seen {
	chain pre { type filter hook prerouting priority 0; counter; }
}
`

// dockerLike makes a pod behind a veth, a bridge and NAT in a namespace first, whose
// uplink eth0 ends in wire.
func dockerLike(t *testing.T) (first, pod *netns) {
	t.Helper()
	first, pod = newNetns(t), newNetns(t)
	wire := newNetns(t)
	first.script(`
		ip link add docker0 type bridge
		ip addr add 10.55.0.1/24 dev docker0
		ip link set docker0 up
		ip link add veth1 type veth peer name c1
		ip link set veth1 master docker0 up
		ip link add up0 type veth peer name w0
		ip addr add 10.66.0.2/24 dev up0
		ip link set up0 up
		sysctl -qw net.ipv4.ip_forward=1
	`)
	first.give(pod, "c1", "eth0")
	first.give(wire, "w0", "w0")
	pod.script(`
		ip addr add 10.55.0.2/24 dev eth0
		ip link set eth0 up
		ip route add default via 10.55.0.1
	`)
	wire.script(`
		ip addr add 10.66.0.1/24 dev w0
		ip link set w0 up
	`)
	first.run("ip", "route", "add", "default", "via", "10.66.0.1")
	first.nft(dockerRules)
	wire.hold()
	return first, pod
}

func TestIntegrationDockerLike(t *testing.T) {
	first, pod := dockerLike(t)
	pod.nft("table inet mine {\n chain out {\n type filter hook output priority 0;\n counter\n}\n}\n")
	before := walkIn(t, first, Options{Namespace: pod.path()})
	want := `
0 route default by eth0 via 10.55.0.1
0 output inet/mine/out
0 veth eth0
1 veth veth1
1 prerouting bridge bridge/seen/pre
1 bridge docker0
1 prerouting ip/nat/PREROUTING
1 route default by up0 via 10.66.0.1
1 forward ip/filter/early ip/filter/FORWARD
1 postrouting ip/nat/POSTROUTING
1 veth up0
2 veth w0
`
	assert.Equal(t, strings.TrimPrefix(want, "\n"), brief(before))
	assert.Equal(t, "there is no default route here; name a destination by --to", before.End)
	require.Len(t, before.Notes, 1, "the library can't read a direction")
	assert.Contains(t, before.Notes[0], "rules of chain ip nat SOURCES are not shown")
	require.Len(t, before.Namespaces, 3)
	assert.True(t, before.Namespaces[1].Own)
	assert.True(t, before.Namespaces[1].Forwarding)
	assert.False(t, before.Namespaces[0].Own)
	if c := before.Namespaces[1].Conntrack; assert.NotNil(t, c) {
		assert.True(t, c.Used)
	}

	pod.run("ping", "-q", "-c", "3", "-i", "0.01", "-W", "5", "10.66.0.1")
	after := walkIn(t, first, Options{Namespace: pod.path()})
	r := Report{VM: "vm1", Pod: "web", Interface: "eth0", Guest: &after}
	r.Since(&Report{Guest: &before})
	var text strings.Builder
	require.NoError(t, r.Write(&text))
	assert.GreaterOrEqual(t, after.Hops[2].Device.TX.Packets, uint64(3))
	assert.Positive(t, after.Hops[2].Device.TX.Since.PacketsPerSecond)
	forward := after.Hops[8].Hook.Chains[1]
	assert.Equal(t, 6, forward.Rules, "with those of DOCKER-USER and DOCKER")
	assert.Equal(t, 2, forward.Called)
	assert.True(t, forward.Conntrack)
	assert.False(t, forward.NAT)
	require.Len(t, forward.Counters, 5)
	assert.Equal(t, "jump DOCKER-USER", forward.Counters[0].Does)
	assert.Equal(t, uint64(6), forward.Counters[0].Count.Packets, "3 there and 3 back")
	assert.True(t, after.Hops[9].Hook.Chains[0].NAT)
	assert.Equal(t, "masquerade", after.Hops[9].Hook.Chains[0].Counters[0].Does)
	assert.Equal(t, uint64(1), after.Hops[9].Hook.Chains[0].Counters[0].Count.Packets)
}

// TestIntegrationDrops has a rule of a forward chain drop, and looks for it.
func TestIntegrationDrops(t *testing.T) {
	first, pod := dockerLike(t)
	first.nft(`
table inet strict {
	chain forward { type filter hook forward priority 10; ip daddr 10.66.0.1 udp dport 9 counter drop; }
}
`)
	before := walkIn(t, first, Options{Namespace: pod.path()})
	pod.within(func() error {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "udp4", "10.66.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	// The packet waits for the kernel to learn where the gateway is.
	drops := regexp.MustCompile(`(?m)^! +rule 1, drop: 1 packet, 29 B .*/s`)
	var text strings.Builder
	for began := time.Now(); !drops.MatchString(text.String()); {
		require.Less(t, time.Since(began), 10*time.Second, "no drop shows:\n%s", text.String())
		after := walkIn(t, first, Options{Namespace: pod.path()})
		r := Report{Guest: &after}
		r.Since(&Report{Guest: &before})
		text.Reset()
		require.NoError(t, r.Write(&text))
	}
}

// TestIntegrationOverlay has the shape of Docker's overlay: the pod's bridge is in a
// namespace of its own, and so is the VXLAN device, which was made in the first one.
func TestIntegrationOverlay(t *testing.T) {
	first, middle, pod, wire := newNetns(t), newNetns(t), newNetns(t), newNetns(t)
	first.script(`
		ip link add up0 type veth peer name w0
		ip addr add 10.66.0.2/24 dev up0
		ip link set up0 up
		ip link add vx0 type vxlan id 42 dstport 4789 local 10.66.0.2 nolearning
		ip link add v1 type veth peer name c1
	`)
	first.give(wire, "w0", "w0")
	first.give(middle, "vx0", "vxlan0")
	first.give(middle, "v1", "veth0")
	first.give(pod, "c1", "eth0")
	first.nft("table ip mine {\n chain out {\n type filter hook output priority 0;\n counter\n}\n}\n")
	middle.script(`
		ip link add br0 type bridge
		ip addr add 10.77.0.1/24 dev br0
		ip link set vxlan0 master br0 up
		ip link set veth0 master br0 up
		ip link set br0 up
		bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 10.66.0.9
	`)
	pod.script(`
		ip addr add 10.77.0.2/24 dev eth0
		ip link set eth0 up
	`)
	wire.script("ip link set w0 up")
	middle.hold()
	wire.hold()
	p := walkIn(t, first, Options{Namespace: pod.path()})
	want := `
0 veth eth0
1 veth veth0
1 bridge br0
1 vxlan vxlan0
2 route 10.66.0.9 by up0
2 output ip/mine/out
2 veth up0
3 veth w0
`
	if p.Namespaces[1].BridgeFilter {
		assert.False(t, p.Namespaces[1].Forwarding)
	}
	assert.Equal(t, strings.TrimPrefix(want, "\n"), brief(p))
	assert.True(t, p.Namespaces[2].Own)
	vx := p.Hops[3].Device
	require.NotNil(t, vx.VXLAN)
	assert.Equal(t, uint32(42), vx.VXLAN.VNI)
	assert.Equal(t, "10.66.0.9", vx.VXLAN.Remote.String())
	assert.Equal(t, "10.66.0.2", vx.VXLAN.Local.String())
	assert.True(t, p.Hops[4].Route.Outer)
}

// TestIntegrationArriving walks as on a host: from a tap by the bridge of a network
// to the host's own uplink, routed or bridged.
func TestIntegrationArriving(t *testing.T) {
	host, wire := newNetns(t), newNetns(t)
	host.script(`
		ip tuntap add tap0 mode tap vnet_hdr
		ip link add bf-blue type bridge
		ip addr add 10.88.0.1/24 dev bf-blue
		ip link set bf-blue up
		ip link set tap0 master bf-blue up
		ip link add up0 type veth peer name w0
		ip addr add 10.66.0.2/24 dev up0
		ip link set up0 up
		ip tuntap add tap1 mode tap
		ip link add br1 type bridge
		ip link set tap1 master br1 up
		ip link add vx5 type vxlan id 5 dstport 4789 dev up0 remote 10.66.0.9 local 10.66.0.2
		ip link set vx5 master br1 up
		ip link set br1 up
	`)
	host.give(wire, "w0", "w0")
	host.run("ip", "route", "add", "default", "via", "10.66.0.1")
	host.nft(`
table bridge guard {
	chain pre { type filter hook prerouting priority -300; counter; }
	chain post { type filter hook postrouting priority 300; }
}
table inet guard {
	chain post { type nat hook postrouting priority srcnat; counter masquerade; }
}
table netdev edge {
	chain in { type filter hook ingress device tap0 priority 0; counter; }
}
`)
	p := walkIn(t, host, Options{Interface: "tap0", Arriving: true, Gateway: netip.MustParseAddr("10.88.0.1")})
	want := `
0 tun tap0
0 prerouting bridge bridge/guard/pre
0 postrouting bridge bridge/guard/post
0 bridge bf-blue
0 route default by up0 via 10.66.0.1
0 postrouting inet/guard/post
0 veth up0
`
	assert.Equal(t, strings.TrimPrefix(want, "\n"), brief(p))
	assert.Contains(t, p.End, "can't be looked at", "nothing leads to the wire's namespace")
	assert.Contains(t, p.Notes, "namespace self does not forward: packets end there")
	tap := p.Hops[0].Device
	require.NotNil(t, tap.Tap)
	assert.True(t, tap.Tap.VnetHdr)
	require.Len(t, tap.Chains, 1)
	assert.Equal(t, "ingress", tap.Chains[0].Hook)

	wire.hold()
	p = walkIn(t, host, Options{Interface: "tap1", Arriving: true, To: netip.MustParseAddr("10.88.9.9")})
	var hops []string
	for line := range strings.Lines(brief(p)) {
		if !strings.Contains(line, "guard") {
			hops = append(hops, strings.TrimSpace(line))
		}
	}
	assert.Equal(t, []string{"0 tun tap1", "0 bridge br1", "0 vxlan vx5", "0 route 10.66.0.9 by up0", "0 veth up0", "1 veth w0"}, hops)
	assert.False(t, p.Hops[0].Device.Tap.VnetHdr)
}

// TestIntegrationArrivingByMacvtap walks as on a host with a network of macvtaps: the
// packet passes it by.
func TestIntegrationArrivingByMacvtap(t *testing.T) {
	host, wire := newNetns(t), newNetns(t)
	host.script(`
		ip link add up0 type veth peer name w0
		ip link set up0 up
		ip link add link up0 name tap0 type macvtap mode bridge
		ip link set tap0 up
	`)
	host.give(wire, "w0", "w0")
	host.nft(`
table inet guard {
	chain pre { type filter hook prerouting priority 0; counter; }
}
table netdev tap0 {
	chain out { type filter hook egress device tap0 priority 0; counter; }
}
`)
	p := walkIn(t, host, Options{Interface: "tap0", Arriving: true, Gateway: netip.MustParseAddr("10.88.0.1")})
	assert.Equal(t, "0 macvtap tap0\n0 veth up0\n", brief(p))
	assert.Contains(t, p.End, "can't be looked at", "nothing leads to the wire's namespace")
	require.Len(t, p.Hops[0].Device.Chains, 1)
	assert.Equal(t, "egress", p.Hops[0].Device.Chains[0].Hook)
}

// TestIntegrationNeighbour has a pod send to another on the same network.
func TestIntegrationNeighbour(t *testing.T) {
	host := newNetns(t)
	host.script(`
		ip link add bf-blue type bridge
		ip addr add 10.88.0.1/24 dev bf-blue
		ip link set bf-blue up
		ip tuntap add tap0 mode tap vnet_hdr
		ip link set tap0 master bf-blue up
		ip tuntap add tap1 mode tap vnet_hdr
		ip link set tap1 master bf-blue up
	`)
	to := netip.MustParseAddr("10.88.0.11")
	p := walkIn(t, host, Options{Interface: "tap0", Arriving: true, To: to, Port: "tap1"})
	assert.Equal(t, "0 tun tap0\n0 bridge bf-blue\n0 tun tap1\n", brief(p))
	assert.Equal(t, "tap1 is a tap: a program is behind it", p.End)

	p = walkIn(t, host, Options{Interface: "tap0", Arriving: true, To: to})
	assert.Equal(t, "0 tun tap0\n0 bridge bf-blue\n", brief(p))
	assert.Equal(t, "10.88.0.11 is a neighbour on bridge bf-blue, behind none of the ports that are known", p.End)

	p = walkIn(t, host, Options{Interface: "tap0", Arriving: true, To: netip.MustParseAddr("10.88.0.1"), Port: "tap1"})
	assert.Equal(t, "10.88.0.1 is an address of this namespace", p.End)
}

func TestIntegrationNowhere(t *testing.T) {
	own, pod := newNetns(t), newNetns(t)
	var missing, noInterface error
	own.within(func() error {
		_, missing = Local(t.Context(), Options{Namespace: "no-such-pod"})
		_, noInterface = Local(t.Context(), Options{Namespace: pod.path()})
		return nil
	})
	require.ErrorIs(t, missing, vnic.ErrUnknownPod)
	require.ErrorIs(t, noInterface, ErrNoInterface)
	require.EqualError(t, noInterface, "invalid argument: no interface eth0 in namespace "+pod.path()+"; name another by --ifname")
	p := walkIn(t, own, Options{Namespace: pod.path(), Interface: "lo"})
	assert.Equal(t, "0 nic lo\n", brief(p))
	assert.Equal(t, "lo is the loopback: nothing leaves the namespace by it", p.End)
}

// TestIntegrationLoop has two namespaces route to each other.
func TestIntegrationLoop(t *testing.T) {
	a, b := newNetns(t), newNetns(t)
	a.script("ip link add eth0 type veth peer name x0")
	a.give(b, "x0", "eth0")
	for n, cmds := range map[*netns]string{
		a: "ip addr add 10.1.0.1/24 dev eth0\nip link set eth0 up",
		b: "ip addr add 10.1.0.2/24 dev eth0\nip link set eth0 up",
	} {
		n.script(cmds)
	}
	a.run("ip", "route", "add", "default", "via", "10.1.0.2")
	b.run("ip", "route", "add", "default", "via", "10.1.0.1")
	b.hold()
	p := walkIn(t, a, Options{})
	assert.Equal(t, "the path comes back to eth0: it is a loop", p.End)
}

func TestIntegrationFindTap(t *testing.T) {
	host := newNetns(t)
	host.script(`
		ip tuntap add vnet0 mode tap
		ip link set vnet0 address fe:54:00:00:00:01
		ip tuntap add tap7 mode tap
		ip link add br0 type bridge
		ip link set tap7 master br0
		bridge fdb add 52:54:00:00:00:02 dev tap7 master static
	`)
	for mac, want := range map[string]string{"52:54:00:00:00:01": "vnet0", "52:54:00:00:00:02": "tap7", "52:54:00:00:00:03": ""} {
		m, err := vnic.ParseMAC(mac)
		require.NoError(t, err)
		host.within(func() error {
			got, err := FindTap(m)
			assert.Equal(t, want, got, mac)
			return err
		})
	}
}
