package overlay_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func blue() overlay.Network {
	return overlay.Network{Name: "blue", Bridge: bridge, VNI: vni, MTU: 1450}
}

// TestIntegrationRemoveLeavesNothing removes a network that this daemon made, and one
// that a former one left.
func TestIntegrationRemoveLeavesNothing(t *testing.T) {
	for _, former := range []bool{false, true} {
		ns := bridged(t)
		before := ns.State()
		var o *overlay.Overlay
		if former {
			leave(t, ns, twoRemotes())
			o = another(t, ns)
		} else {
			o = another(t, ns)
			require.NoError(t, o.SetNetwork(t.Context(), blue()))
			_, err := o.Replace(t.Context(), vni, twoRemotes())
			require.NoError(t, err)
		}
		assert.NotEqual(t, before, ns.State())
		require.NoError(t, o.RemoveNetwork(t.Context(), vni))
		require.NoError(t, o.RemoveNetwork(t.Context(), vni), "again")
		assert.Equal(t, before, ns.State())
		assert.Empty(t, ns.Run("ip", "neigh"))
		assert.NotContains(t, ns.Run("bridge", "fdb"), "02:01:")
		found, err := o.Networks(t.Context())
		require.NoError(t, err)
		assert.Empty(t, found)
		_, err = o.Replace(t.Context(), vni, nil)
		require.ErrorIs(t, err, vnic.ErrUnknownNetwork)
		assert.Zero(t, o.Stats().Drift)
	}
}

// bridged returns a namespace with a bridge.
func bridged(tb testing.TB) *netnstest.NS {
	tb.Helper()
	ns := netnstest.New(tb)
	ns.Run("ip", "link", "add", bridge, "up", "address", "02:00:00:00:00:fe", "type", "bridge", "mcast_snooping", "0")
	return ns
}

// leave leaves what a daemon does that dies.
func leave(t *testing.T, ns *netnstest.NS, remotes []overlay.Remote) {
	t.Helper()
	ns.In(func() error {
		o, err := overlay.New(overlay.Config{Local: netip.MustParseAddr("192.0.2.1"), Log: quiet()})
		if err != nil {
			return err
		}
		err = o.SetNetwork(t.Context(), blue())
		if err == nil {
			_, err = o.Replace(t.Context(), vni, remotes)
		}
		return errors.Join(err, o.Close())
	})
}

// another returns an overlay of a namespace.
func another(tb testing.TB, ns *netnstest.NS) (o *overlay.Overlay) {
	tb.Helper()
	ns.In(func() (err error) {
		o, err = overlay.New(overlay.Config{Local: netip.MustParseAddr("192.0.2.1"), Log: quiet()})
		return err
	})
	tb.Cleanup(func() { require.NoError(tb, o.Close()) })
	return o
}

// TestIntegrationReplaceAfterCrash finds what a former daemon left and somebody changed.
func TestIntegrationReplaceAfterCrash(t *testing.T) {
	ns := bridged(t)
	leave(t, ns, many(1, 3))
	ns.Run("bridge", "fdb", "del", "02:01:00:00:00:01", "dev", vxlan, "self")
	ns.Run("ip", "neigh", "replace", "10.0.0.2", "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", bridge)

	o := another(t, ns)
	require.NoError(t, o.SetNetwork(t.Context(), blue()))
	ns.Run("ip", "neigh", "add", "10.0.0.99", "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", bridge)
	require.NoError(t, o.Set(t.Context(), vni, many(2, 1)...), "before the whole table is known")
	d, err := o.Replace(t.Context(), vni, many(1, 2))
	require.NoError(t, err)
	assert.Equal(t, overlay.Drift{Missing: 1, Wrong: 0, Foreign: 4}, d, "Set has corrected one; the third pod has three entries")
	d, err = o.Reconcile(t.Context(), vni)
	require.NoError(t, err)
	assert.Zero(t, d)
	assert.Zero(t, o.Stats().Drift, "what was never declared is no drift")
	assert.Len(t, entries(ns), 6)
}

// TestIntegrationReconcile compares all while the monitor repairs the same.
func TestIntegrationReconcile(t *testing.T) {
	ns, o := lone(t)
	remotes := twoRemotes()
	_, err := o.Replace(t.Context(), vni, remotes)
	require.NoError(t, err)
	want := entries(ns)
	ns.Run("bridge", "fdb", "del", remotes[0].MAC.String(), "dev", vxlan, "self", "master")
	for _, r := range remotes { // a flush would start anew when it finds what was repaired
		for _, a := range r.Addresses {
			ns.Run("ip", "neigh", "del", a.String(), "dev", bridge)
		}
	}
	_, err = o.Reconcile(t.Context(), vni)
	require.NoError(t, err)
	// Either it or the monitor was first; nothing is counted twice.
	settles(t, ns, o, want, overlay.Drift{Missing: 6})
}

// TestIntegrationSetChanges changes pods one by one.
func TestIntegrationSetChanges(t *testing.T) {
	ns, o := lone(t)
	r := twoRemotes()
	require.NoError(t, o.Set(t.Context(), vni, r...))
	want := entries(ns)
	require.Len(t, want, 8)

	moved := r[0]
	moved.Host, moved.Addresses = netip.MustParseAddr("203.0.113.5"), moved.Addresses[:1]
	require.NoError(t, o.Set(t.Context(), vni, moved))
	assert.Contains(t, entries(ns), "02:01:00:00:00:01 dst 203.0.113.5 self sticky static")
	assert.Len(t, entries(ns), 7, "an address that it doesn't have any more is gone")

	// An address goes from one pod to another: the first one's end doesn't take it away.
	heir := r[1]
	heir.Addresses = append(heir.Addresses, moved.Addresses[0])
	require.NoError(t, o.Set(t.Context(), vni, heir))
	require.NoError(t, o.Remove(t.Context(), vni, moved.MAC))
	require.NoError(t, o.Remove(t.Context(), vni, moved.MAC), "again")
	assert.Contains(t, entries(ns), "10.0.0.1 dev bf-blue lladdr 02:01:00:00:00:02 PERMANENT")
	assert.Len(t, entries(ns), 5)
	require.NoError(t, o.Set(t.Context(), vni, r...))
	assert.Equal(t, want, entries(ns))
	assert.Zero(t, o.Stats().Drift)
}

// TestIntegrationLocalStationsStay declares remote pods with MACs that are here.
func TestIntegrationLocalStationsStay(t *testing.T) {
	ns, o := lone(t)
	ns.Run("ip", "link", "add", "tap", "type", "veth", "peer", "name", "peer")
	ns.Run("ip", "link", "set", "tap", "up", "master", bridge)
	remotes := many(1, 3)
	ns.Run("bridge", "fdb", "add", remotes[0].MAC.String(), "dev", "tap", "master", "static")
	remotes[1].MAC = vnic.MAC{2, 0, 0, 0, 0, 0xfe} // the bridge's own
	for range 2 {
		d, err := o.Replace(t.Context(), vni, remotes)
		require.ErrorIs(t, err, vnic.ErrAddressTaken)
		require.ErrorContains(t, err, "(and 1 more)")
		assert.Zero(t, d.Wrong+d.Foreign)
	}
	d, err := o.Reconcile(t.Context(), vni)
	require.ErrorIs(t, err, vnic.ErrAddressTaken)
	assert.Zero(t, d)
	fdb := ns.Run("bridge", "fdb")
	assert.Contains(t, fdb, remotes[0].MAC.String()+" dev tap master")
	assert.NotContains(t, fdb, remotes[0].MAC.String()+" dev bfx-77")
	assert.Contains(t, fdb, remotes[2].MAC.String()+" dev bfx-77", "the others are there")
	ns.Run("ip", "link", "del", "tap")
	require.Eventually(t, func() bool {
		return len(entries(ns)) == 2+2+3
	}, 20*time.Second, time.Millisecond, "the entries take effect once the port is gone")
}

func TestIntegrationConflicts(t *testing.T) {
	ns, o := lone(t)
	n := blue()
	n.VNI = 78
	ns.Run("ip", "link", "add", "theirs", "type", "vxlan", "id", "78", "dstport", "4789")
	err := o.SetNetwork(t.Context(), n)
	require.ErrorIs(t, err, vnic.ErrConflict)
	require.ErrorContains(t, err, "vni 78 of port 4789 is link theirs's")
	other := netnstest.New(t)
	ns.In(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		l, err := c.Link("theirs")
		return errors.Join(err, c.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: other.FD()})), c.Close())
	})
	require.ErrorContains(t, o.SetNetwork(t.Context(), n), "a link that was moved to another namespace's")

	n.VNI = 79
	ns.Run("ip", "link", "add", "bfx-79", "type", "veth", "peer", "name", "peer")
	require.ErrorIs(t, o.SetNetwork(t.Context(), n), vnic.ErrConflict)
	require.NoError(t, o.RemoveNetwork(t.Context(), 79))
	assert.Contains(t, ns.Run("ip", "link"), "bfx-79", "it is not ours")

	n.VNI, n.Bridge = 80, "none"
	require.ErrorIs(t, o.SetNetwork(t.Context(), n), fs.ErrNotExist)
	n.Bridge = "lo"
	require.ErrorIs(t, o.SetNetwork(t.Context(), n), vnic.ErrInvalid)
	require.ErrorIs(t, o.Set(t.Context(), 80, many(1, 1)...), vnic.ErrUnknownNetwork)
	n.Bridge = bridge
	require.NoError(t, o.SetNetwork(t.Context(), n), "after it failed")
}

func TestIntegrationInvalid(t *testing.T) {
	_, o := lone(t)
	good := many(1, 1)[0]
	for name, spoil := range map[string]func(*overlay.Remote){
		"no mac":               func(r *overlay.Remote) { r.MAC = vnic.MAC{} },
		"group":                func(r *overlay.Remote) { r.MAC[0] |= 1 },
		"no host":              func(r *overlay.Remote) { r.Host = netip.Addr{} },
		"this host":            func(r *overlay.Remote) { r.Host = netip.MustParseAddr("192.0.2.1") },
		"host of other family": func(r *overlay.Remote) { r.Host = netip.MustParseAddr("2001:db8::1") },
		"multicast host":       func(r *overlay.Remote) { r.Host = netip.MustParseAddr("224.0.0.1") },
		"no address":           func(r *overlay.Remote) { r.Addresses = []netip.Addr{{}} },
		"mapped address":       func(r *overlay.Remote) { r.Addresses = []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")} },
		"zone":                 func(r *overlay.Remote) { r.Addresses = []netip.Addr{netip.MustParseAddr("fe80::1%x")} },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			spoil(&r)
			require.ErrorIs(t, o.Set(t.Context(), vni, r), vnic.ErrInvalid)
			_, err := o.Replace(t.Context(), vni, []overlay.Remote{good, r})
			require.ErrorIs(t, err, vnic.ErrInvalid)
		})
	}
	for _, n := range []overlay.Network{{}, {Bridge: bridge, MTU: 1450}, {Bridge: bridge, MTU: 1450, VNI: 1 << 24}, {Bridge: bridge, VNI: 1}, {VNI: 1, MTU: 1450}} {
		require.ErrorIs(t, o.SetNetwork(t.Context(), n), vnic.ErrInvalid)
	}
	for _, local := range []string{"0.0.0.0", "ff02::1", "fe80::1%x"} {
		_, err := overlay.New(overlay.Config{Local: netip.MustParseAddr(local), Log: quiet()})
		require.ErrorIs(t, err, vnic.ErrInvalid)
	}
	_, err := overlay.New(overlay.Config{Log: quiet()})
	require.ErrorIs(t, err, vnic.ErrInvalid)
}

func TestIntegrationMTU(t *testing.T) {
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "u0", "mtu", "9000", "up", "type", "veth", "peer", "name", "u1", "mtu", "9000")
	ns.Run("ip", "link", "set", "u1", "up")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "u0")
	ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "u0", "nodad")
	ns.Run("ip", "addr", "add", "198.51.100.1/32", "dev", "lo")
	for _, tt := range []struct {
		local string
		mtu   int
		err   string
	}{
		{"192.0.2.1", 8950, ""},
		{"2001:db8::1", 8930, ""},
		{"198.51.100.1", 0, "address 198.51.100.1 is on the loopback link, and no route of its family leads to a gateway"},
		{"203.0.113.1", 0, "no link of the underlay has address 203.0.113.1"},
	} {
		mtu, err := mtuOf(t, ns, tt.local)
		assert.Equal(t, tt.mtu, mtu, tt.local)
		if tt.err == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, tt.err)
		}
	}
	ns.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	mtu, err := mtuOf(t, ns, "198.51.100.1")
	require.NoError(t, err)
	assert.Equal(t, 8950, mtu, "that of the way out, for an address of the loopback")
}

func mtuOf(t *testing.T, ns *netnstest.NS, local string) (mtu int, err error) {
	t.Helper()
	ns.In(func() error {
		o, openErr := overlay.New(overlay.Config{Local: netip.MustParseAddr(local), Log: quiet()})
		if openErr != nil {
			return openErr
		}
		mtu, err = o.MTU()
		return o.Close()
	})
	return mtu, err
}
