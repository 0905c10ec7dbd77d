package orchestrator_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/vnic"
)

// TestCloseWhileFilling doesn't wait for the hypervisor; the next start cleans up.
func TestCloseWhileFilling(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Hang("retrieve")
		r.setPool(2, 2)
		start := time.Now()
		require.NoError(r.t, r.orch.Close())
		assert.Less(r.t, time.Since(start), time.Second)
		left := r.vnics()
		require.Len(r.t, left, 2)
		r.world.Fail("retrieve", nil)
		r.start()
		r.settleDown()
		r.settled()
		assert.NotContains(r.t, r.parked(), left[0].ID)
	})
}

// TestFillFails tries again, tells why, and is done when it works.
func TestFillFails(t *testing.T) {
	cases := []struct {
		name string
		prep func(*orchestratortest.World)
		want string
		end  func(*orchestratortest.World)
	}{
		{
			"plug", func(w *orchestratortest.World) { w.Fail("plug", errBoom) }, "plug: boom",
			func(w *orchestratortest.World) { w.Fail("plug", nil) },
		},
		{
			"retrieve", func(w *orchestratortest.World) { w.Fail("retrieve", errBoom) }, "retrieve: boom",
			func(w *orchestratortest.World) { w.Fail("retrieve", nil) },
		},
		{
			"no slot", func(w *orchestratortest.World) { w.SetSlots("vm1", 0) },
			"plug: vm vm1: no free PCI slot: 0 of 0 in use; boot the vm with more, see `brfuse topology --vnics N`",
			func(w *orchestratortest.World) { w.SetSlots("vm1", 9) },
		},
		{
			"no agent", func(w *orchestratortest.World) { w.StopAgent("vm1") }, "vm vm1: guest agent unavailable",
			func(w *orchestratortest.World) { w.StartAgent("vm1") },
		},
		{
			"nic never shows", func(w *orchestratortest.World) { w.Blind("vm1") }, "vnic did not appear in the guest",
			func(w *orchestratortest.World) { w.Boot("vm1", "web", "db") },
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				c.prep(r.world)
				require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 2, High: 2}))
				r.settleDown()
				assert.Contains(r.t, r.status().LastError, c.want)
				assert.Zero(r.t, r.status().Parked)
				plugs := r.world.Calls("plug")
				r.settleDown()
				assert.LessOrEqual(r.t, r.world.Calls("plug"), plugs+8, "it backs off")
				c.end(r.world)
				r.settleDown()
				r.settled()
			})
		})
	}
}

// TestFillAndUnplugFail keeps what may still be plugged, until it is not.
func TestFillAndUnplugFail(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Fail("retrieve", errBoom)
		r.world.Fail("unplug", errBoom)
		r.setPool(1, 1)
		assert.Contains(r.t, r.leases(), "/draining/")
		r.world.Fail("retrieve", nil)
		r.world.Fail("unplug", nil)
		r.settleDown()
		r.settled()
	})
}

// TestEvict has a VM without a free slot: a cold attach gets that of a parked vNIC.
func TestEvict(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		r.world.SetSlots("vm1", 3)
		require.NoError(r.t, r.orch.Ready(r.t.Context(), "vm1", "red"))
		red := func(i int) (vnic.Attachment, error) {
			req := request("web", fmt.Sprintf("eth%d", i))
			req.Network = "red"
			return r.orch.Attach(r.t.Context(), req)
		}
		for i := range 3 {
			_, err := red(i)
			require.NoError(r.t, err)
			assert.Equal(r.t, 2-i, r.status().Parked)
		}
		_, err := red(3)
		require.ErrorIs(r.t, err, vnic.ErrNoSlot)
		require.EqualError(r.t, err, "attach web/eth3 in vm1: phase leased: plug: vm vm1: no free PCI slot: 3 of 3 in use; "+
			"boot the vm with more, see `brfuse topology --vnics N`")
		require.ErrorIs(r.t, r.orch.Ready(r.t.Context(), "vm1", "red"), vnic.ErrNoSlot)
		r.settleDown()
		r.consistent()
		assert.Contains(r.t, r.status().LastError, "no free PCI slot")
		for i := range 3 {
			_, err := r.orch.DetachKey(r.t.Context(), request("web", fmt.Sprintf("eth%d", i)).Key)
			require.NoError(r.t, err)
			synctest.Wait()
			assert.Equal(r.t, i+1, r.status().Parked, "the slot is taken as soon as it is free")
		}
		r.settled()
	})
}

// TestEvictMany has many cold attaches at once, in a VM that is full of parked
// vNICs and of some that are being plugged.
func TestEvictMany(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.SetSlots("vm1", 5)
		r.world.After("plug", func(context.Context) error { time.Sleep(30 * time.Millisecond); return nil }) //nolint:forbidigo // as long as it takes
		require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 5, High: 5}))
		time.Sleep(45 * time.Millisecond) //nolint:forbidigo // some are parked, and one is being plugged
		each(5, func(i int) {
			req := request("web", fmt.Sprintf("eth%d", i))
			req.Network = "red"
			_, err := r.orch.Attach(r.t.Context(), req)
			assert.NoError(r.t, err)
		})
		r.settleDown()
		r.consistent()
		assert.Zero(r.t, r.status().Parked)
	})
}

// TestEvictKeepsTheSlot has the pool want back the slot that an attach has made
// for itself, and is slow to use.
func TestEvictKeepsTheSlot(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		r.world.SetSlots("vm1", 1)
		var plugs atomic.Int32
		r.world.Before("plug", func(context.Context) error {
			if plugs.Add(1) == 2 {
				time.Sleep(5 * time.Second) //nolint:forbidigo // fake
			}
			return nil
		})
		req := request("web", "eth0")
		req.Network = "red"
		_, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
	})
}

// TestFillYields waits with plugging while attaches run, but not forever.
func TestFillYields(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		goOn := make(chan struct{})
		r.world.Before("move", func(context.Context) error { <-goOn; return nil })
		done := make(chan error, 1)
		go func() {
			_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
			done <- err
		}()
		synctest.Wait()
		assert.Equal(r.t, 1, r.world.Calls("plug"))
		time.Sleep(time.Second) //nolint:forbidigo // a fake second
		synctest.Wait()
		assert.Equal(r.t, 2, r.world.Calls("plug"))
		close(goOn)
		require.NoError(r.t, <-done)
		r.settled()
	})
}
