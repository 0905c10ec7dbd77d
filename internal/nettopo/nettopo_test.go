package nettopo

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// rig is a client, a guest and a pod. The client's wire is the guest's uplink.
type rig struct{ client, guest, pod space }

const (
	clientAddr = "192.0.2.2"
	guestAddr  = "192.0.2.1"
	podAddr    = "10.88.0.2"
	port       = ":8080"
)

func newRig(t *testing.T) rig {
	t.Helper()
	r := rig{newSpace(t), newSpace(t), newSpace(t)}
	wire(r.client, "wire0", clientAddr+"/24", r.guest, "eth0", guestAddr+"/24")
	r.client.run("ip route add 10.88.0.0/24 via " + guestAddr)
	return r
}

func (r rig) spec(k Kind) Spec {
	s := Spec{
		Kind: k, Pod: r.pod.path(), Address: netip.MustParsePrefix(podAddr + "/24"),
		Gateway: netip.MustParseAddr("10.88.0.1"), Uplink: "eth0",
	}
	switch {
	case k == NAT:
		s.Publish = []uint16{6000, 8080}
	case k.overlay():
		s.VNI, s.Local, s.Remote = 77, netip.MustParseAddr(guestAddr), netip.MustParseAddr(clientAddr)
	}
	return s
}

func (r rig) state() string { return r.guest.state() + r.pod.state() + named(r.guest) }

// named lists what the topologies of a namespace have in /run/netns.
func named(guest space) string {
	all, _ := filepath.Glob(filepath.Join(netnsx.Dir, overlayNetns(guest.NS)+"*"))
	return strings.Join(all, "\n")
}

func (s space) up(spec Spec) error { return s.Do(func() error { return Up(s.t.Context(), spec) }) }

// tracked returns the tracked connections of the pod.
func (s space) tracked(spec Spec) (flows []rtnl.Flow) {
	s.t.Helper()
	require.NoError(s.t, s.Do(func() error {
		c, err := rtnl.NewConntrack()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Forget(false, func(f rtnl.Flow) bool {
			if pod := spec.Address.Addr(); f.Source.Addr() == pod || f.Target.Addr() == pod {
				flows = append(flows, f)
			}
			return false
		})
		return err
	}))
	return flows
}

// down is Down, also when the test's own context is over.
func (s space) down(spec Spec) error {
	return s.Do(func() error { return Down(context.WithoutCancel(s.t.Context()), spec) })
}

// mustUp builds a topology that is removed at the latest with the test.
func (s space) mustUp(spec Spec) {
	s.t.Helper()
	s.t.Cleanup(func() { assert.NoError(s.t, s.down(spec)) })
	require.NoError(s.t, s.up(spec))
}

func TestIntegrationRouted(t *testing.T) {
	for _, k := range []Kind{Veth, Bridged, NAT} {
		t.Run(string(k), func(t *testing.T) {
			r := newRig(t)
			before, s := r.state(), r.spec(k)
			r.guest.mustUp(s)

			at, seen := podAddr, clientAddr // whom the client calls, and who the pod's calls seem to come from
			outside := podAddr
			if k == NAT {
				at, outside = guestAddr, guestAddr
			}
			e := serve(r.pod, "0.0.0.0"+port)
			assert.Equal(t, seen, requireReach(r.client, e, at+port, 1400, 9000).String())
			e = serve(r.client, "0.0.0.0:9090")
			assert.Equal(t, outside, requireReach(r.pod, e, clientAddr+":9090", 1400, 9000).String())
			assert.Contains(t, r.pod.run("ip -o link show eth0"), "mtu 1500")
			assert.Contains(t, r.pod.run("ip -o link show eth0"), "02:42:0a:58:00:02")
			assert.NotContains(t, r.pod.run("ip -o addr show eth0"), "inet6")

			require.NoError(t, r.guest.down(s))
			assert.Equal(t, before, r.state())
			require.NoError(t, r.guest.down(s), "again")
			assert.Equal(t, before, r.state())
			requireNoReach(r.client, "tcp", at+port)
		})
	}
}

// TestIntegrationNAT: only what is published gets in, and what is forwarded to others
// goes on to them.
func TestIntegrationNAT(t *testing.T) {
	r := newRig(t)
	other := newSpace(t)
	wire(r.guest, "br-user", "10.99.0.1/24", other, "eth0", "10.99.0.2/24")
	other.run("ip route add default via 10.99.0.1")
	r.client.run("ip route add 10.99.0.0/24 via " + guestAddr)
	r.guest.run("sysctl -qw net.ipv4.ip_forward=1")
	r.guest.run("nft add table ip user")
	before, s := r.state(), r.spec(NAT)
	r.guest.mustUp(s)

	e := serve(other, "0.0.0.0"+port)
	assert.Equal(t, clientAddr, requireReach(r.client, e, "10.99.0.2"+port).String(), "a published port of another host")
	e = serve(r.client, "0.0.0.0"+port)
	assert.Equal(t, "10.99.0.2", requireReach(other, e, clientAddr+port).String(), "another's call is not masqueraded")

	pod := serve(r.pod, "0.0.0.0:8081")
	requireNoReach(r.client, "tcp", guestAddr+":8081")
	requireNoReach(r.client, "udp", podAddr+":8081")
	assert.Empty(t, pod.peer)

	requireReach(r.client, serve(r.pod, "0.0.0.0"+port), guestAddr+port)
	tracked := r.guest.tracked(s)
	require.NotEmpty(t, tracked)
	require.NoError(t, r.guest.down(s))
	assert.Empty(t, r.guest.tracked(s), "of %v", tracked)
	assert.Equal(t, before, r.state(), "ip_forward and the user's table are as they were")
}

func TestIntegrationOverlay(t *testing.T) {
	for _, k := range []Kind{OverlayLinux, OverlayNested} {
		for _, static := range []bool{false, true} {
			name := string(k)
			if static {
				name += " with entries"
			}
			t.Run(name, func(t *testing.T) { testOverlay(t, k, static) })
		}
	}
}

func testOverlay(t *testing.T, k Kind, static bool) {
	t.Helper()
	a, b := newRig(t), rig{guest: newSpace(t), pod: newSpace(t)}
	b.guest = a.client // the two guests are wired to each other
	ends := []struct {
		rig
		spec   Spec
		before string
		at     space
	}{{rig: a, spec: a.spec(k)}, {rig: b, spec: b.spec(k)}}
	ends[1].spec.Address, ends[1].spec.Uplink = netip.MustParsePrefix("10.88.0.3/24"), "wire0"
	ends[1].spec.Local, ends[1].spec.Remote = ends[0].spec.Remote, ends[0].spec.Local
	a.client.run("ip route del 10.88.0.0/24")
	for i := range ends {
		e := &ends[i]
		if e.at = e.pod; k == OverlayLinux {
			e.at = e.guest
		}
		if static {
			e.spec.RemoteMAC = MAC(ends[1-i].spec.Address.Addr())
		}
		e.before = e.state()
		e.guest.mustUp(e.spec)
	}
	for i, e := range ends {
		addr := e.spec.Address.Addr().String() + port
		peer := requireReach(ends[1-i].at, serve(e.at, addr), addr, 1400, 9000)
		assert.Equal(t, ends[1-i].spec.Address.Addr(), peer)
	}
	entry := MAC(ends[1].spec.Address.Addr()).String() + " dst " + clientAddr
	assert.Equal(t, static, strings.Contains(a.guest.fdb(k), entry), a.guest.fdb(k))
	if k == OverlayNested {
		assert.Contains(t, a.pod.run("ip -o link show eth0"), "mtu 1450")
	} else {
		assert.Contains(t, a.guest.run("ip -o link show "+vxlanName), "mtu 1450")
	}
	for _, e := range ends {
		require.NoError(t, e.guest.down(e.spec))
		require.NoError(t, e.guest.down(e.spec), "again")
		assert.Equal(t, e.before, e.state())
		require.NoError(t, e.guest.up(e.spec), "the number of the overlay is free again")
		require.NoError(t, e.guest.down(e.spec))
		assert.Equal(t, e.before, e.state())
	}
}

// fdb returns the forwarding entries of a guest's overlay.
func (s space) fdb(k Kind) string {
	s.t.Helper()
	if k == OverlayNested {
		ns, err := netnsx.Open(overlayNetns(s.NS))
		require.NoError(s.t, err)
		defer func() { require.NoError(s.t, ns.Close()) }()
		s.NS = ns
	}
	return s.run("bridge fdb show dev " + vxlanName)
}

// after is a context that ends when it was asked so many times whether it has.
type after struct {
	context.Context
	times *int
}

func (a after) Err() error {
	if *a.times--; *a.times < 0 {
		return context.Canceled
	}
	return nil
}

// TestIntegrationHalf: a topology of which only the first steps were made is undone by
// Up itself, and removed by Down.
func TestIntegrationHalf(t *testing.T) {
	r := newRig(t)
	t.Cleanup(func() { assert.NoError(t, r.guest.down(r.spec(Veth))) })
	before := r.state()
	for _, k := range Kinds() {
		s := r.spec(k)
		if k.overlay() {
			s.RemoteMAC = vnic.MAC{2, 0, 0, 0, 0, 1} // a step of its own
		}
		for n := range len((&builder{Spec: s}).steps()) {
			times := n
			err := r.guest.Do(func() error { return Up(after{t.Context(), &times}, s) })
			require.ErrorIs(t, err, context.Canceled, "%s after %d steps", k, n)
			require.Equal(t, before, r.state(), "%s: Up undid %d steps", k, n)
			require.NoError(t, r.guest.Do(func() error {
				return inside(s, func(b *builder) error { return doSteps(t.Context(), b.steps()[:n+1]) })
			}))
			require.NotEqual(t, before, r.state())
			require.NoError(t, r.guest.down(r.spec(Veth)), "a topology of any kind")
			require.Equal(t, before, r.state(), "%s: Down removed %d steps", k, n+1)
		}
	}
}

func doSteps(ctx context.Context, steps []step) error {
	for _, do := range steps {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// TestIntegrationFileOnly: what a crash leaves of overlay-nested before its namespace
// is mounted.
func TestIntegrationFileOnly(t *testing.T) {
	r := newRig(t)
	t.Cleanup(func() { assert.NoError(t, netnsx.Remove(overlayNetns(r.guest.NS))) })
	before := r.state()
	require.NoError(t, os.MkdirAll(netnsx.Dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(netnsx.Dir, overlayNetns(r.guest.NS)), nil, 0o444))
	require.ErrorIs(t, r.guest.up(r.spec(OverlayNested)), fs.ErrExist)
	require.NoError(t, r.guest.down(r.spec(OverlayNested)))
	assert.Equal(t, before, r.state())
}

func TestIntegrationUpTwice(t *testing.T) {
	r := newRig(t)
	for _, k := range Kinds() {
		s := r.spec(k)
		r.guest.mustUp(s)
		up := r.state()
		for _, again := range Kinds() {
			err := r.guest.up(r.spec(again))
			require.ErrorIs(t, err, fs.ErrExist)
			require.ErrorContains(t, err, "take that topology down first")
		}
		assert.Equal(t, up, r.state())
		require.NoError(t, r.guest.down(s))
	}
}

// TestIntegrationForeign: links of others that have our names stay.
func TestIntegrationForeign(t *testing.T) {
	r := newRig(t)
	r.guest.run("ip link add " + bridgeName + " type bridge")
	before, s := r.state(), r.spec(Bridged)
	err := r.guest.up(s)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "build topology bridged: link bfb-br, which is not of a topology: file already exists; rename or delete it")
	require.NoError(t, r.guest.down(s))
	assert.Equal(t, before, r.state())
}

// TestIntegrationForwardedBefore: forwarding that others turned on stays on, also after
// two rounds.
func TestIntegrationForwardedBefore(t *testing.T) {
	r := newRig(t)
	r.guest.run("sysctl -qw net.ipv4.conf.eth0.forwarding=1")
	before, s := r.state(), r.spec(Bridged)
	for range 2 {
		r.guest.mustUp(s)
		require.NoError(t, r.guest.down(s))
		assert.Equal(t, before, r.state())
	}
}

func TestIntegrationGone(t *testing.T) {
	r := newRig(t)
	s := r.spec(NAT)
	r.guest.mustUp(s)
	r.client.run("ip link del wire0") // the uplink with it
	r.pod.run("ip link del eth0")     // and bfb-veth
	require.NoError(t, r.guest.down(s))
	assert.Equal(t, 1, strings.Count(r.guest.run("ip -o link"), "\n"), "lo")
	assert.Empty(t, r.guest.run("nft list tables"))
}

func TestIntegrationRefused(t *testing.T) {
	r := newRig(t)
	busy, routed := newSpace(t), newSpace(t)
	busy.run("ip link add eth0 type veth peer name eth1")
	routed.run("ip link add eth1 type veth peer name eth2")
	routed.run("ip link set eth2 up")
	routed.run("ip link set eth1 up")
	routed.run("ip route add default dev eth1")
	tests := []struct {
		name   string
		change func(*Spec)
		is     error
		text   string
	}{
		{"no uplink", func(s *Spec) { s.Uplink = "eth9" }, fs.ErrNotExist, "uplink eth9"},
		{"no pod", func(s *Spec) { s.Pod = "no-such-pod" }, vnic.ErrUnknownPod, "no-such-pod"},
		{"own namespace", func(s *Spec) { s.Pod = "/proc/thread-self/ns/net" }, vnic.ErrInvalid, "is the namespace that the topology is built in"},
		{"interface taken", func(s *Spec) { s.Pod = busy.path() }, fs.ErrExist, "interface eth0 of pod"},
		{"route taken", func(s *Spec) { s.Pod = routed.path() }, fs.ErrExist, "default route of pod"},
		{"invalid", func(s *Spec) { s.Kind = "nest" }, vnic.ErrInvalid, `kind "nest" is unknown`},
	}
	before := r.state() + busy.state() + routed.state()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := r.spec(Bridged)
			tt.change(&s)
			err := r.guest.up(s)
			require.ErrorIs(t, err, tt.is)
			assert.ErrorContains(t, err, tt.text)
		})
	}
	assert.Equal(t, before, r.state()+busy.state()+routed.state())
}
