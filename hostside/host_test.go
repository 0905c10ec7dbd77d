package hostside

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationPlugAndUnplug(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	for _, queues := range []int{1, 4} {
		p := testPlug()
		p.Queues, p.MTU = queues, 1400
		port, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
		assert.Equal(t, vnic.Port{VM: "vm", ID: p.ID, MAC: p.MAC, Slot: "rp0/1", Tap: true, Plug: true, Bridged: true}, port)

		y.mu.Lock()
		assert.Len(t, y.devices[p.ID].files, queues)
		y.mu.Unlock()
		link := ns.Run("ip", "-d", "link", "show", p.ID.TapName())
		for _, want := range []string{"NOARP", "UP", "mtu 1400", "master bf-pods", "alias brfuse vm vm", "learning off", "flood off", "vnet_hdr on", "persist off"} {
			assert.Contains(t, link, want)
		}
		assert.NotContains(t, ns.Run("ip", "addr", "show", p.ID.TapName()), "inet", "the host has no address there")
		assert.Contains(t, ns.Run("bridge", "fdb"), p.MAC.String()+" dev "+p.ID.TapName()+" master bf-pods static")

		same, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
		assert.Equal(t, port, same, "a second time")
		ports, err := h.Ports(t.Context(), "vm")
		require.NoError(t, err)
		assert.Equal(t, []vnic.Port{port}, ports)

		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID), "a second time")
		assert.Equal(t, before, ns.State())
		assert.NotContains(t, ns.Run("nft", "list", "table", "bridge", "brfuse"), p.MAC.String())
	}
	assert.Equal(t, 2, y.plugs)
}

func TestIntegrationNothingIsLeft(t *testing.T) {
	ns := netnstest.New(t)
	before := ns.State()
	y := newHypervisor()
	defer y.die()
	h := openTestHost(t, ns, y)
	require.NoError(t, h.AddVM(t.Context(), testVM))
	require.NoError(t, h.SetNetwork(t.Context(), testNet))
	p := testPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	require.ErrorIs(t, h.RemoveNetwork(t.Context(), testNet), vnic.ErrInUse)
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	require.NoError(t, h.RemoveNetwork(t.Context(), testNet))
	require.NoError(t, h.RemoveNetwork(t.Context(), testNet), "again")
	require.NoError(t, h.RemoveVM(t.Context(), "vm"))
	assert.Equal(t, before, ns.State())
}

func TestIntegrationPlugErrors(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	y.mu.Lock()
	y.slots = 0
	y.mu.Unlock()
	for _, tt := range []struct {
		name   string
		change func(*vnic.Plug)
		want   error
		text   string
	}{
		{"unknown vm", func(p *vnic.Plug) { p.VM = "other" }, vnic.ErrUnknownVM, "vm other: unknown vm"},
		{"unknown network", func(p *vnic.Plug) { p.Network = "other" }, vnic.ErrUnknownNetwork, "network other: unknown network: create it first"},
		{"no slot", func(*vnic.Plug) {}, vnic.ErrNoSlot, "0 of 0 in use; boot the vm with more, see `brfuse topology --vnics N`"},
		{"mtu larger than the network's", func(p *vnic.Plug) { p.MTU = 9000 }, vnic.ErrInvalid, "mtu 9000 is not in 1280-1500"},
		{"no mac", func(p *vnic.Plug) { p.MAC = vnic.MAC{} }, vnic.ErrInvalid, "is no unicast address"},
		{"no id", func(p *vnic.Plug) { p.ID = "x" }, vnic.ErrInvalid, "is not 10 lower-case hex digits"},
		{"too many queues", func(p *vnic.Plug) { p.Queues = 257 }, vnic.ErrInvalid, "queues 257 is not in 1-256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testPlug()
			tt.change(&p)
			_, err := h.Plug(t.Context(), p)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
			assert.Equal(t, before, ns.State(), "all is undone")
		})
	}
	require.ErrorIs(t, h.Unplug(t.Context(), "other", vnic.NewID()), vnic.ErrUnknownVM)
	_, err := h.Status(t.Context(), "other")
	require.ErrorIs(t, err, vnic.ErrUnknownVM)
	_, err = h.Ports(t.Context(), "other")
	require.ErrorIs(t, err, vnic.ErrUnknownVM)
	require.ErrorIs(t, h.RemoveVM(t.Context(), "other"), vnic.ErrUnknownVM)
	require.ErrorIs(t, h.AddVM(t.Context(), vnic.VM{Name: "vm", QMP: "/elsewhere"}), vnic.ErrConflict)
}

func TestIntegrationPlugThatFailsIsUndone(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	y.mu.Lock()
	y.plugErr = errors.New("device_add refused")
	y.mu.Unlock()
	p := testPlug()
	_, err := h.Plug(t.Context(), p)
	require.ErrorContains(t, err, "device_add refused")
	assert.Equal(t, before, ns.State())

	y.mu.Lock()
	y.hold = make(chan struct{})
	y.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = h.Plug(ctx, p)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, before, ns.State())
}

func TestIntegrationPlugOutlivesItsConnection(t *testing.T) {
	h, y, _ := newTestHost(t)
	y.mu.Lock()
	y.lose = true
	y.mu.Unlock()
	p := testPlug()
	port, err := h.Plug(t.Context(), p)
	require.NoError(t, err, "the answer was lost with the connection, and had over the next one")
	requireEvent(t, h, vnic.EventVMUp)
	ports, err := h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{port}, ports)
}

func TestIntegrationPlugWhileTheVMDies(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	y.mu.Lock()
	y.hold = make(chan struct{})
	y.mu.Unlock()
	p := testPlug()
	done := make(chan error, 1)
	go func() {
		_, err := h.Plug(t.Context(), p)
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(ns.State(), p.ID.TapName()) }, 5*time.Second, 5*time.Millisecond)
	y.die()
	close(y.hold)
	require.ErrorIs(t, <-done, vnic.ErrVMGone)
	requireEvent(t, h, vnic.EventVMGone)
	assert.Equal(t, before, ns.State())
	assert.NotContains(t, ns.Run("nft", "list", "table", "bridge", "brfuse"), p.MAC.String())
}

func TestIntegrationConcurrentPlugs(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	const n = 8
	y.mu.Lock()
	y.hold = make(chan struct{})
	y.mu.Unlock()
	plugs := make([]vnic.Plug, n)
	errs := make([]error, 2*n)
	var wg sync.WaitGroup
	for i := range plugs {
		plugs[i] = testPlug()
		for j := range 2 { // each one twice
			wg.Go(func() { _, errs[2*i+j] = h.Plug(t.Context(), plugs[i]) })
		}
	}
	// All of them wait for the hypervisor at the same time.
	require.Eventually(t, func() bool {
		taps, err := h.links.TapStates(t.Context())
		return err == nil && len(taps) == n
	}, 5*time.Second, 5*time.Millisecond)
	close(y.hold)
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	assert.Equal(t, n, y.plugs)
	for i := range plugs {
		wg.Go(func() { errs[i] = h.Unplug(t.Context(), "vm", plugs[i].ID) })
	}
	wg.Wait()
	for _, err := range errs[:n] {
		require.NoError(t, err)
	}
	assert.Equal(t, before, ns.State())
}

func TestIntegrationVMGoneAndBack(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	p := testPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)

	y.drop()
	requireEvent(t, h, vnic.EventVMUp)
	ports, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, ports, 1, "a lost connection takes nothing away")

	y.die()
	requireEvent(t, h, vnic.EventVMGone)
	ports, err = h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{{ID: p.ID}}, ports, "the tap is gone with the process, the filter is not")
	require.NoError(t, h.Unplug(t.Context(), "", p.ID))
	ports, err = h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Empty(t, ports)
	_, err = h.Plug(t.Context(), testPlug())
	require.ErrorIs(t, err, vnic.ErrVMGone)
	st, err := h.Status(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, VMStatus{}, st)
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	assert.Equal(t, before, ns.State())
	assert.NotContains(t, ns.Run("nft", "list", "table", "bridge", "brfuse"), p.MAC.String())

	y.start()
	requireEvent(t, h, vnic.EventVMUp)
	_, err = h.Plug(t.Context(), p)
	require.NoError(t, err)
	st, err = h.Status(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, VMStatus{Running: true, Version: "7.2.22", Hotplug: "acpi", SlotsUsed: 1, SlotsTotal: 8}, st)
}

// TestIntegrationConnectionLostWhileMade: that tells nothing about the process,
// so nobody may take the VM and its devices for gone.
func TestIntegrationConnectionLostWhileMade(t *testing.T) {
	h, y, _ := newTestHost(t)
	p := testPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	y.mu.Lock()
	y.dialErr = fmt.Errorf("read greeting: EOF: %w", vnic.ErrVMGone)
	y.dropLocked()
	y.mu.Unlock()
	ports, err := h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	assert.Len(t, ports, 1)
	requireEvent(t, h, vnic.EventVMUp)
}

func TestIntegrationRemovalByOthersIsTold(t *testing.T) {
	h, y, _ := newTestHost(t)
	id := vnic.NewID()
	y.mu.Lock()
	for c := range y.conns {
		c.events <- vnic.Event{Kind: vnic.EventRemoved, ID: id}
	}
	y.mu.Unlock()
	assert.Equal(t, id, requireEvent(t, h, vnic.EventRemoved).ID)
}

func TestIntegrationRestartOfTheDaemon(t *testing.T) {
	h, y, ns := newTestHost(t)
	p := testPlug()
	port, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	table := ns.Run("nft", "list", "ruleset")

	again := openTestHost(t, ns, y)
	assert.Equal(t, table, ns.Run("nft", "list", "ruleset"), "filter and masquerading stay in force")
	require.NoError(t, again.AddVM(t.Context(), testVM))
	require.NoError(t, again.SetNetwork(t.Context(), testNet))
	ports, err := again.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{port}, ports)
	same, err := again.Plug(t.Context(), p)
	require.NoError(t, err)
	assert.Equal(t, port, same)
	assert.Equal(t, table, ns.Run("nft", "list", "ruleset"))
	require.NoError(t, again.Unplug(t.Context(), "vm", p.ID))
}

func TestIntegrationStrayTap(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	p := testPlug()
	ns.In(func() error { // as a daemon leaves it that dies with its descriptors inherited
		files, err := rtnl.OpenTap(p.ID.TapName(), 1)
		t.Cleanup(func() { require.NoError(t, rtnl.CloseFiles(files)) })
		return err
	})
	ports, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{{ID: p.ID, Tap: true}}, ports)
	ports, err = h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	assert.Empty(t, ports)

	require.NoError(t, h.Unplug(t.Context(), "", p.ID))
	assert.Equal(t, before, ns.State())

	ns.In(func() error {
		files, err := rtnl.OpenTap(p.ID.TapName(), 1)
		t.Cleanup(func() { require.NoError(t, rtnl.CloseFiles(files)) })
		return err
	})
	_, err = h.Plug(t.Context(), p)
	require.NoError(t, err, "a plug replaces what is left of an earlier one")
	y.mu.Lock()
	ids := slices.Collect(func(yield func(vnic.ID) bool) {
		for id := range y.devices {
			if !yield(id) {
				return
			}
		}
	})
	y.mu.Unlock()
	assert.Equal(t, []vnic.ID{p.ID}, ids)
}

// BenchmarkIntegrationPlug is the host's own share of an attach and detach,
// without a hypervisor's.
func BenchmarkIntegrationPlug(b *testing.B) {
	h, _, _ := newTestHost(b)
	var plug, unplug time.Duration
	n := 0
	for b.Loop() {
		p := testPlug()
		start := time.Now()
		_, err := h.Plug(b.Context(), p)
		require.NoError(b, err)
		plugged := time.Now()
		require.NoError(b, h.Unplug(b.Context(), "vm", p.ID))
		plug, unplug = plug+plugged.Sub(start), unplug+time.Since(plugged)
		n++
	}
	b.ReportMetric(float64(plug.Microseconds())/float64(n), "µs/plug")
	b.ReportMetric(float64(unplug.Microseconds())/float64(n), "µs/unplug")
}
