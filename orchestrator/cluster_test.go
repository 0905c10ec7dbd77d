package orchestrator_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// hypervisor is one of several on one store, with a world of its own, whose VM is
// "vm-" and the hypervisor's name.
type hypervisor struct {
	t      *testing.T
	name   string
	world  *orchestratortest.World
	conn   *orchestratortest.Conn
	shared store.Store
	orch   *orchestrator.Orchestrator
	cfg    orchestrator.Config
	die    context.CancelFunc // of the key that says it is alive
	held   func()             // called when that was put

	mu       sync.Mutex
	stations map[string]map[vnic.MAC]vnic.Station // guarded by mu; by network
	backends []vnic.Backend                       // guarded by mu
	own      map[string][]netip.Prefix            // guarded by mu; addresses of its own
	fail     error                                // guarded by mu; of all calls for stations
}

// cluster is hypervisors on one store, and the t of their bubble.
type cluster struct {
	t      *testing.T
	shared store.Store
	hs     []*hypervisor
}

// inCluster runs a test with hypervisors a, b and so on in a bubble of synctest.
func inCluster(t *testing.T, n int, test func(c cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		shared := memstore.New()
		var hs []*hypervisor
		for i := range n {
			h := &hypervisor{t: t, name: string(rune('a' + i)), world: orchestratortest.New(), shared: shared}
			h.world.Boot("vm-"+h.name, "web", "db")
			h.cfg.Quarantine = -1
			h.cfg.Cluster = &orchestrator.Cluster{
				Self:    vnic.Hypervisor{Name: h.name, Underlay: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)), MTU: 1450},
				Overlay: h, KeepAlive: h.keepAlive, ReleaseAfter: time.Minute,
			}
			h.start()
			require.NoError(t, h.orch.AddVM(t.Context(), vm("vm-"+h.name)))
			hs = append(hs, h)
		}
		synctest.Wait()
		test(cluster{t, shared, hs})
	})
}

func (h *hypervisor) start() {
	h.t.Helper()
	h.conn = h.world.Conn()
	h.stations = map[string]map[vnic.MAC]vnic.Station{}
	h.cfg.Store, h.cfg.Host, h.cfg.Guest, h.cfg.VMs, h.cfg.Services = h.conn.Store(h.shared), h.conn, h.conn, h.conn, h
	var err error
	h.orch, err = orchestrator.New(context.Background(), h.cfg)
	require.NoError(h.t, err)
	h.conn.Notify(h.orch.Notify)
	orch := h.orch
	h.t.Cleanup(func() { require.NoError(h.t, orch.Close()) })
}

// crash ends the daemon as by kill -9; what it had in the kernel stays.
func (h *hypervisor) crash() {
	h.conn.Crash()
	h.die()
	require.NoError(h.t, h.orch.Close())
	synctest.Wait()
}

// keepAlive holds a key until the daemon dies.
func (h *hypervisor) keepAlive(ctx context.Context, key string, value []byte, held func()) error {
	ctx, h.die = context.WithCancel(ctx)
	h.held = held
	_, err := h.shared.Update(ctx, func(tx store.Tx) error { return tx.Put(key, value) })
	if err != nil {
		return err
	}
	held()
	<-ctx.Done()
	_, err = h.shared.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return tx.Delete(key) })
	return err
}

// revive puts the key again after die, without a restart of the daemon.
func (h *hypervisor) revive() {
	h.t.Helper()
	key := fabric.AlivePrefix + h.name
	_, err := h.shared.Update(h.t.Context(), func(tx store.Tx) error { return tx.Put(key, []byte(h.name)) })
	require.NoError(h.t, err)
	h.held()
	pass(time.Second)
}

// ReplaceStations implements [fabric.Overlay].
func (h *hypervisor) ReplaceStations(_ context.Context, network string, all []vnic.Station) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stations[network] = map[vnic.MAC]vnic.Station{}
	for _, s := range all {
		h.stations[network][s.MAC] = s
	}
	return h.fail
}

// SetStations implements [fabric.Overlay].
func (h *hypervisor) SetStations(_ context.Context, network string, some []vnic.Station) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range some {
		h.stations[network][s.MAC] = s
	}
	return h.fail
}

// RemoveStations implements [fabric.Overlay].
func (h *hypervisor) RemoveStations(_ context.Context, network string, macs []vnic.MAC) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range macs {
		delete(h.stations[network], m)
	}
	return h.fail
}

// SetHostAddresses implements [orchestrator.Overlay].
func (h *hypervisor) SetHostAddresses(network string, addrs []netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own == nil {
		h.own = map[string][]netip.Prefix{}
	}
	h.own[network] = addrs
}

// BridgeMAC implements [orchestrator.Overlay].
func (h *hypervisor) BridgeMAC(context.Context, string) (vnic.MAC, error) {
	return standMAC(h.name[0]), nil
}

// standMAC is that of the bridge on the hypervisor of that letter.
func standMAC(letter byte) vnic.MAC { return vnic.MAC{2, 0, 0, 0, 0, letter} }

// SetServices implements [fabric.Services].
func (h *hypervisor) SetServices(_ context.Context, all []vnic.Backend) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.backends = all
	return nil
}

// sees prints the pods elsewhere of the overlay as "ADDRESSES via UNDERLAY".
func (h *hypervisor) sees() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for m, s := range h.stations["over"] {
		if m == standMAC(m[5]) {
			continue
		}
		list = append(list, fmt.Sprintf("%v via %s", s.Addresses, s.Via))
	}
	slices.Sort(list)
	return list
}

// leads prints where the services lead.
func (h *hypervisor) leads() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, b := range h.backends {
		var line strings.Builder
		line.WriteString(b.Name)
		for _, to := range b.Targets {
			fmt.Fprintf(&line, " %s", to.To)
			if to.Local {
				line.WriteString("(here)")
			}
		}
		lines = append(lines, line.String())
	}
	return strings.Join(lines, "\n")
}

func (h *hypervisor) attach(pod string) vnic.Attachment {
	h.t.Helper()
	a, err := h.orch.Attach(h.t.Context(), vnic.Request{Key: vnic.Key{VM: "vm-" + h.name, Pod: pod, Interface: "eth0"}, Network: "over"})
	require.NoError(h.t, err)
	return a
}

func (h *hypervisor) detach(a vnic.Attachment) {
	h.t.Helper()
	_, err := h.orch.Detach(h.t.Context(), a.ID)
	require.NoError(h.t, err)
}

func (h *hypervisor) createOverlay() vnic.Network {
	h.t.Helper()
	n, err := h.orch.CreateNetwork(h.t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay, Subnets: prefixes("10.7.0.0/16", "fd00:7::/64")})
	require.NoError(h.t, err)
	synctest.Wait()
	return n
}

func seen(a vnic.Attachment, via string) string {
	return fmt.Sprintf("[%s %s] via %s", a.Leases[0].Addr(), a.Leases[1].Addr(), via)
}

// TestOverlayNetwork: each hypervisor that has a pod of an overlay knows where the
// pods of the others are, and the network is made where it is needed only.
func TestOverlayNetwork(t *testing.T) {
	inCluster(t, 3, func(c cluster) {
		t, shared, hs := c.t, c.shared, c.hs
		a, b, d := hs[0], hs[1], hs[2]
		n := a.createOverlay()
		assert.Equal(t, 1450, n.MTU)
		assert.NotZero(t, n.VNI)
		again, err := b.orch.CreateNetwork(t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay, Subnets: prefixes("10.7.0.0/16", "fd00:7::/64")})
		require.NoError(t, err)
		assert.Equal(t, n, again)
		assert.Empty(t, a.world.String(), "nothing is made before it is needed")

		web := a.attach("web")
		assert.Equal(t, 1450, web.MTU)
		assert.Contains(t, a.world.String(), "network over on bf-over")
		assert.Empty(t, b.world.String())
		db := b.attach("db")
		assert.NotEqual(t, web.Leases, db.Leases)
		assert.Equal(t, []string{seen(web, "192.0.2.1")}, b.sees())
		assert.Equal(t, []string{seen(db, "192.0.2.2")}, a.sees())
		assert.Empty(t, d.sees())

		assert.Contains(t, a.stations["over"], standMAC('b'), "the hypervisors themselves are stations, too")
		require.Len(t, a.own["over"], 2)
		assert.Equal(t, []netip.Addr{b.own["over"][0].Addr(), b.own["over"][1].Addr()}, a.stations["over"][standMAC('b')].Addresses)
		gone, err := a.orch.GC(t.Context(), true)
		require.NoError(t, err)
		assert.Empty(t, gone)

		err = d.orch.RemoveNetwork(t.Context(), "over")
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "on hypervisor")

		b.detach(db)
		assert.Empty(t, a.sees())
		assert.Empty(t, b.world.String(), "the network goes with its last pod")
		a.detach(web)
		synctest.Wait()
		require.NoError(t, d.orch.RemoveNetwork(t.Context(), "over"))
		synctest.Wait()
		require.NoError(t, shared.View(t.Context(), func(tx store.ReadTx) error {
			items, err := tx.Scan("", 0)
			for _, it := range items {
				ok := strings.HasPrefix(it.Key, "hypervisor/") || strings.HasPrefix(it.Key, "alive/") || strings.HasPrefix(it.Key, "underlay/") || strings.HasPrefix(it.Key, "owner/vm/") ||
					strings.Contains(it.Key, "/vm/vm-") || it.Key == "vni/last"
				assert.True(t, ok, "%s is left", it.Key)
			}
			return err
		}))
	})
}

// TestClusterVMs: a VM's name is one hypervisor's, and others know whose.
func TestClusterVMs(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, hs := c.t, c.hs
		a, b := hs[0], hs[1]
		err := b.orch.AddVM(t.Context(), vm("vm-a"))
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "a vm of that name is on hypervisor a")
		h, err := b.orch.HypervisorOf(t.Context(), "vm-a")
		require.NoError(t, err)
		assert.Equal(t, "a", h.Name)
		_, err = b.orch.HypervisorOf(t.Context(), "none")
		require.ErrorIs(t, err, vnic.ErrUnknownVM)
		a.createOverlay()
		web := a.attach("web")
		h, err = b.orch.HypervisorOfAttachment(t.Context(), web.ID)
		require.NoError(t, err)
		assert.Equal(t, "a", h.Name)
		list, err := b.orch.ListAll(t.Context(), orchestrator.Filter{})
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.Equal(t, "a", list[0].Hypervisor)
		mine, err := b.orch.List(t.Context(), orchestrator.Filter{})
		require.NoError(t, err)
		assert.Empty(t, mine)
		hypervisors, err := b.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		require.Len(t, hypervisors, 2)
		assert.Equal(t, 1, hypervisors[0].Attachments)
		require.NoError(t, a.orch.RemoveVM(t.Context(), "vm-a", true))
		_, err = b.orch.HypervisorOf(t.Context(), "vm-a")
		require.ErrorIs(t, err, vnic.ErrUnknownVM)
	})
}

// TestDaemonRestart: a daemon that starts again finds its own and the others'.
func TestDaemonRestart(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, hs := c.t, c.hs
		a, b := hs[0], hs[1]
		a.createOverlay()
		web, db := a.attach("web"), b.attach("db")
		a.crash()
		assert.Equal(t, []string{seen(web, "192.0.2.1")}, b.sees(), "its pods run")
		hypervisors, err := b.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "dead", hypervisors[0].State)
		list, err := b.orch.ListAll(t.Context(), orchestrator.Filter{})
		require.NoError(t, err)
		assert.True(t, list[0].Dead)
		b.attach("web")
		a.start()
		assert.Len(t, a.sees(), 2)
		a.detach(web)
		b.detach(db)
		assert.Empty(t, b.sees())
		assert.Empty(t, a.world.String(), "the network goes with its last pod")
	})
}

// TestDeadHypervisor: what a dead one held is released in time, and it gives up its
// pods when it returns.
func TestDeadHypervisor(t *testing.T) {
	inCluster(t, 3, func(c cluster) {
		t, hs := c.t, c.hs
		a, b, d := hs[0], hs[1], hs[2]
		n := d.createOverlay()
		web, db := a.attach("web"), b.attach("db")
		err := b.orch.RemoveHypervisor(t.Context(), "a")
		require.ErrorIs(t, err, vnic.ErrInUse, "it is alive")
		a.crash()
		pass(30 * time.Second)
		assert.Equal(t, []string{seen(web, "192.0.2.1")}, b.sees())
		pass(time.Minute)
		assert.Empty(t, b.sees(), "its pods are given up")
		hypervisors, err := d.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "released", hypervisors[0].State)
		assert.Zero(t, hypervisors[0].Attachments)
		again, err := d.orch.Attach(t.Context(), vnic.Request{
			Key: vnic.Key{VM: "vm-c", Pod: "web", Interface: "eth0"}, Network: n.Name, Addresses: []netip.Addr{web.Leases[0].Addr()},
		})
		require.NoError(t, err, "its addresses are free")
		a.start()
		pass(time.Minute)
		assert.NotContains(t, a.world.String(), string(web.ID), "its pod has lost the vnic")
		assert.ElementsMatch(t, []string{seen(db, "192.0.2.2"), seen(again, "192.0.2.3")}, func() []string { a.attach("db"); return a.sees() }())
	})
}

// TestRemoveHypervisor forgets one that is gone for good, with its VMs.
func TestRemoveHypervisor(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, hs := c.t, c.hs
		a, b := hs[0], hs[1]
		a.createOverlay()
		a.attach("web")
		require.ErrorIs(t, b.orch.RemoveHypervisor(t.Context(), "zz"), vnic.ErrInvalid)
		a.crash()
		require.NoError(t, b.orch.RemoveHypervisor(t.Context(), "a"))
		list, err := b.orch.ListAll(t.Context(), orchestrator.Filter{})
		require.NoError(t, err)
		assert.Empty(t, list)
		hypervisors, err := b.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		require.Len(t, hypervisors, 1)
		require.NoError(t, b.orch.AddVM(t.Context(), vm("vm-a")), "the name is free")
	})
}

// TestStationsFail: what the overlay could not take is declared again.
func TestStationsFail(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, hs := c.t, c.hs
		a, b := hs[0], hs[1]
		a.createOverlay()
		a.attach("web")
		set := func(err error) { a.mu.Lock(); defer a.mu.Unlock(); a.fail = err }
		set(assert.AnError)
		db := b.attach("db")
		a.mu.Lock()
		clear(a.stations["over"])
		a.mu.Unlock()
		pass(5 * time.Second)
		set(nil)
		pass(30 * time.Second)
		assert.Equal(t, []string{seen(db, "192.0.2.2")}, a.sees())
	})
}

// pass lets time go by in a bubble.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble of synctest
	synctest.Wait()
}
