package orchestrator_test

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// TestReenterNeeded: a hypervisor that was released while its daemon ran has other
// addresses of its own afterwards, for another may have the former ones.
func TestReenterNeeded(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.createOverlay()
		b.attach("web")
		a.publish()
		old := a.stand()
		require.Len(t, old, 2)
		a.die()
		pass(2 * time.Minute)
		require.Empty(t, c.keys(fabric.Home("a")+"self/"))
		_, err := b.orch.Attach(t.Context(), vnic.Request{
			Key: vnic.Key{VM: "vm-b", Pod: "db", Interface: "eth0"}, Network: "over", Addresses: addrs(old),
		})
		require.NoError(t, err, "the addresses are free")

		var given []netip.Prefix
		a.world.After("setnetwork", func(context.Context) error { given = a.stand(); return nil })
		a.revive()
		require.Len(t, a.stand(), 2)
		assert.NotContains(t, a.stand(), old[0])
		assert.NotContains(t, a.stand(), old[1])
		assert.Equal(t, a.stand(), given, "the bridge has them")
		assert.Len(t, c.keys(fabric.Home("a")+"self/"), 1)
		b.mu.Lock()
		defer b.mu.Unlock()
		assert.Equal(t, addrs(given), b.stations["over"][standMAC('a')].Addresses, "the others know of them")
	})
}

// TestReenterUnused: what was in a network belongs to nobody after a release, so the
// network goes; until it can, it is given no addresses that may be another's.
func TestReenterUnused(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.createOverlay()
		a.attach("web")
		old := a.stand()
		a.die()
		pass(2 * time.Minute)
		_, err := b.orch.Attach(t.Context(), vnic.Request{
			Key: vnic.Key{VM: "vm-b", Pod: "db", Interface: "eth0"}, Network: "over", Addresses: addrs(old),
		})
		require.NoError(t, err)
		a.world.Fail("removenetwork", vnic.ErrInUse)
		a.revive()
		require.Len(t, a.stand(), 2)
		assert.NotContains(t, a.stand(), old[0])
		a.world.Fail("removenetwork", nil)
		pass(time.Minute)
		assert.Empty(t, a.world.String())
		assert.Empty(t, a.stand())
		assert.Empty(t, c.keys(fabric.Home("a")+"self/"))
	})
}

// TestSweepKeepsNeeded: a daemon that starts again doesn't remove a network that services
// need, also when it hears of them late, and does remove others.
func TestSweepKeepsNeeded(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		s := a.tap()
		a.createOverlay()
		b.attach("web")
		a.publish()
		for _, late := range []string{"", fabric.EndpointPrefix, "network/over"} {
			removed := a.world.Calls("removenetwork")
			s.set(late, nil)
			a.crash()
			a.start()
			pass(10 * time.Second)
			s.set("", nil)
			pass(time.Minute)
			assert.Equal(t, removed, a.world.Calls("removenetwork"), late)
			assert.Contains(t, a.world.String(), "network over")
			assert.Len(t, a.stand(), 2)
		}
		a.crash()
		require.NoError(t, b.orch.RemoveService(t.Context(), "web"))
		s.set(fabric.EndpointPrefix, nil)
		a.start()
		pass(10 * time.Second)
		s.set("", nil)
		pass(time.Minute)
		assert.Empty(t, a.world.String())
		assert.Empty(t, c.keys(fabric.Home("a")+"self/"))
	})
}

// TestSweepStands: a daemon that was killed while it made a network, of which there is no
// bridge yet, has no addresses of its own there when it starts again.
func TestSweepStands(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.createOverlay()
		b.attach("web")
		a.conn.CrashAt("before setnetwork", 0)
		b.publish()
		require.True(t, a.conn.Crashed())
		require.Len(t, c.keys(fabric.Home("a")+"self/"), 1)
		a.crash()
		require.NoError(t, b.orch.RemoveService(t.Context(), "web"))
		a.start()
		pass(time.Minute)
		assert.Empty(t, c.keys(fabric.Home("a")+"self/"))
		assert.Empty(t, c.keys(fabric.Home("a")+"ipam/owner/"))
	})
}

// TestCreateOverlayAgain: an overlay keeps its MTU when a hypervisor with less room joins,
// and creating it again is no error.
func TestCreateOverlayAgain(t *testing.T) {
	inCluster(t, 1, func(c cluster) {
		t, a := c.t, c.hs[0]
		n := a.createOverlay()
		a.attach("web")
		_, err := c.shared.Update(t.Context(), func(tx store.Tx) error {
			return tx.Put(fabric.HypervisorPrefix+"z", []byte(`{"name":"z","underlay":"192.0.2.99","mtu":1400}`))
		})
		require.NoError(t, err)
		for _, mtu := range []int{0, 1450} {
			set := a.world.Calls("setnetwork")
			again, err := a.orch.CreateNetwork(t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay, Subnets: n.Subnets, MTU: mtu})
			require.NoError(t, err, mtu)
			assert.Equal(t, n, again)
			assert.Equal(t, set+1, a.world.Calls("setnetwork"), "it is made sure of")
		}
		_, err = a.orch.CreateNetwork(t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay, Subnets: n.Subnets, MTU: 1400})
		require.ErrorIs(t, err, vnic.ErrConflict)
		next, err := a.orch.CreateNetwork(t.Context(), vnic.Network{Name: "next", Kind: vnic.KindOverlay, Subnets: prefixes("10.9.0.0/16")})
		require.NoError(t, err)
		assert.Equal(t, 1400, next.MTU)
		_, err = a.orch.CreateNetwork(t.Context(), vnic.Network{Name: "big", Kind: vnic.KindOverlay, Subnets: prefixes("10.10.0.0/16"), MTU: 1450})
		require.ErrorIs(t, err, vnic.ErrInvalid)
	})
}

// TestNetworkHalfMade: what a network that can't be made has got by then is taken back.
func TestNetworkHalfMade(t *testing.T) {
	for name, fail := range map[string]func(h *hypervisor, err error){
		"bridge": func(h *hypervisor, err error) { h.world.Fail("setnetwork", err) },
		"vxlan": func(h *hypervisor, err error) {
			h.world.After("setnetwork", func(context.Context) error { return err })
		},
		"stations": func(h *hypervisor, err error) { h.mu.Lock(); h.fail = err; h.mu.Unlock() },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 1, func(c cluster) {
				t, a := c.t, c.hs[0]
				a.createOverlay()
				fail(a, errBoom)
				_, err := a.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm-a", Pod: "web", Interface: "eth0"}, Network: "over"})
				require.ErrorIs(t, err, errBoom)
				pass(time.Minute)
				assert.Empty(t, a.world.String())
				assert.Empty(t, a.stand())
				assert.Empty(t, c.keys(fabric.Home("a")+"self/"))
				assert.Empty(t, c.keys("ipam/lease/"))
				fail(a, nil)
				a.attach("web")
			})
		})
	}
}

// TestNoUnderlay: a hypervisor without an underlay is in no overlay, also when services
// lead there, and takes no addresses of it.
func TestNoUnderlay(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.crash()
		own, out := *a.cfg.Cluster, &logged{}
		own.Self.Underlay, own.Self.MTU = netip.Addr{}, 0
		a.cfg.Cluster, a.cfg.Log = &own, slog.New(slog.NewTextHandler(out, nil))
		a.start()
		b.createOverlay()
		_, err := a.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm-a", Pod: "db", Interface: "eth0"}, Network: "over"})
		require.ErrorIs(t, err, vnic.ErrUnsupported)
		require.ErrorContains(t, err, "start brfused with --underlay ADDRESS")
		b.attach("web")
		b.publish()
		pass(5 * time.Minute)
		assert.Empty(t, c.keys(fabric.Home("a")+"self/"))
		assert.Empty(t, a.world.String())
		assert.Equal(t, 1, strings.Count(out.String(), "services don't lead from here"))
		assert.NotContains(t, out.String(), "task failed")
	})
}

// TestAttachWhileLeaving: a vNIC that comes right after it was seen that there is none
// keeps the network.
func TestAttachWhileLeaving(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		s := a.tap()
		a.createOverlay()
		web := a.attach("web")
		came := make(chan vnic.Attachment, 1)
		s.set("", func(read []string) {
			if slices.Contains(read, fabric.Home("a")+"vnic/") {
				s.set("", nil)
				came <- a.attach("db")
			}
		})
		a.detach(web)
		pass(time.Minute)
		db := <-came
		assert.Contains(t, a.world.String(), "network over on bf-over")
		more := b.attach("web")
		assert.Equal(t, []string{seen(more, "192.0.2.2")}, a.sees(), "it is followed")
		a.detach(db)
		pass(time.Second)
		assert.Empty(t, a.world.String())
	})
}

// TestNetworkMadeAnew: one that others removed and made anew, before this hypervisor
// looked, takes the place of the former one here, without its pools and addresses.
func TestNetworkMadeAnew(t *testing.T) {
	anew := func(c cluster) vnic.Network {
		c.t.Helper()
		b := c.hs[1]
		require.NoError(c.t, b.orch.RemoveNetwork(c.t.Context(), "over"))
		n, err := b.orch.CreateNetwork(c.t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay, Subnets: prefixes("10.8.0.0/16", "fd00:8::/64")})
		require.NoError(c.t, err)
		return n
	}
	within := func(c cluster, n vnic.Network) {
		c.t.Helper()
		stand := c.hs[0].stand()
		require.Len(c.t, stand, 2)
		for _, p := range stand {
			_, ok := n.Subnet(p.Addr())
			assert.True(c.t, ok, "%s is of the former network", p)
		}
		for _, k := range c.keys("ipam/lease/over/") {
			assert.Regexp(c.t, `/(10\.8\.|fd00:8:)`, k)
		}
	}
	t.Run("with a pool", func(t *testing.T) {
		inCluster(t, 2, func(c cluster) {
			a := c.hs[0]
			s := a.tap()
			a.createOverlay()
			require.NoError(c.t, a.orch.SetPool(c.t.Context(), vnic.Pool{VM: "vm-a", Network: "over", Low: 2, High: 4}))
			pass(time.Minute)
			require.Contains(c.t, a.world.String(), "tap")
			s.set("network/over", nil)
			n := anew(c)
			s.set("", nil)
			pass(time.Minute)
			assert.Empty(c.t, a.world.String())
			assert.Empty(c.t, c.keys(fabric.Home("a")+"pool/"))
			a.attach("web")
			within(c, n)
		})
	})
	t.Run("with a pod of the new one", func(t *testing.T) {
		inCluster(t, 2, func(c cluster) {
			a := c.hs[0]
			s := a.tap()
			old := a.createOverlay()
			require.NoError(c.t, a.orch.SetPool(c.t.Context(), vnic.Pool{VM: "vm-a", Network: "over", Low: 2, High: 4}))
			pass(time.Minute)
			s.set("network/over", nil)
			n := anew(c)
			assert.NotEqual(c.t, old.VNI, n.VNI)
			a.attach("web")
			set := a.world.Calls("setnetwork")
			s.set("", nil)
			pass(time.Minute)
			assert.Greater(c.t, a.world.Calls("setnetwork"), set)
			within(c, n)
			more := c.hs[1].attach("db")
			assert.Equal(c.t, []string{seen(more, "192.0.2.2")}, a.sees())
		})
	})
	t.Run("while this one was down", func(t *testing.T) {
		inCluster(t, 2, func(c cluster) {
			a, b := c.hs[0], c.hs[1]
			a.createOverlay()
			web := b.attach("web")
			a.publish()
			a.crash()
			require.NoError(c.t, b.orch.RemoveService(c.t.Context(), "web"))
			b.detach(web)
			n := anew(c)
			b.attach("web")
			b.publish()
			a.start()
			pass(time.Minute)
			within(c, n)
		})
	})
}
