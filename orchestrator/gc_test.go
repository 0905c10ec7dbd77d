package orchestrator_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// TestGC litters the world and the store with all that can be garbage.
func TestGC(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("db", "eth0")
		clean := r.leases()
		world := r.world.String()
		stuck := r.attach("web", "eth0")
		r.world.Fail("unplug", errBoom)
		_, err := r.orch.Detach(r.t.Context(), stuck.ID)
		require.Error(r.t, err)
		synctest.Wait() // the next try is not under way: GC leaves alone what is
		r.world.Litter("vm1", "00000000aa")
		r.world.Litter("vm8", "00000000bb")
		r.world.LitterFilter("00000000ee")
		r.litterStore(r.t)

		want := []string{
			"address 10.1.0.99 of network blue leased to no attachment",
			"address fd00:1::4 of network blue leased to no attachment",
			"attachment 00000000dd (old/eth0 in vm8) of an unknown vm",
			"attachment " + string(stuck.ID) + " (web/eth0 in vm1) stuck in phase detaching: unplug: boom",
			"device brf00000000aa in vm vm1 of no attachment",
			"mac 02:00:00:00:00:cc leased to no attachment",
			"packet filter of tap brf00000000ee, which does not exist",
			"tap brf00000000aa of no attachment",
			"tap brf00000000bb of no attachment",
		}
		got, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		require.ElementsMatch(r.t, want, got)

		_, err = r.orch.GC(r.t.Context(), false)
		require.ErrorIs(r.t, err, errBoom)
		r.world.Fail("unplug", nil)
		_, err = r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		synctest.Wait()
		got, err = r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.Empty(r.t, got)
		assert.Equal(r.t, clean, r.leases())
		assert.Equal(r.t, world, r.world.String())
	})
}

// litterStore leases to an attachment that isn't there, and stores one of a VM
// that isn't.
func (r *rig) litterStore(t *testing.T) {
	t.Helper()
	pool := ipam.New(ipam.Options{})
	owner := ipam.Owner{ID: "00000000cc", Key: vnic.Key{VM: "vm1", Pod: "old", Interface: "eth0"}}
	blue, err := vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")}.Complete()
	require.NoError(t, err)
	_, err = r.store.Update(t.Context(), func(tx store.Tx) error {
		if _, err := pool.TakeMAC(tx, owner, vnic.MAC{2, 0, 0, 0, 0, 0xcc}); err != nil {
			return err
		}
		want := request("old", "eth0")
		want.Addresses = append(want.Addresses, prefixes("10.1.0.99/32")[0].Addr())
		if _, err := pool.Take(tx, blue, owner, want.Addresses); err != nil {
			return err
		}
		a := vnic.Attachment{ID: "00000000dd", Phase: vnic.PhaseReady, Request: request("old", "eth0")}
		a.Request.VM = "vm8"
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		return tx.Put("attachment/00000000dd", b)
	})
	require.NoError(t, err)
}

func TestGCLeavesTheRunningAlone(t *testing.T) {
	for _, call := range []string{"prepare", "plug", "move", "configure"} {
		t.Run(call, func(t *testing.T) {
			inRig(t, func(r *rig) {
				reached, goOn := make(chan struct{}), make(chan struct{})
				r.world.After(call, func(context.Context) error { close(reached); <-goOn; return nil })
				done := make(chan error, 1)
				go func() {
					_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
					done <- err
				}()
				<-reached
				found, err := r.orch.GC(r.t.Context(), false)
				require.NoError(r.t, err)
				assert.Empty(r.t, found)
				close(goOn)
				require.NoError(r.t, <-done)
				r.consistent()
			})
		})
	}
}

// TestGCBroken has a tap be deleted by hand, of which no event tells.
func TestGCBroken(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("db", "eth0")
		a := r.attach("web", "eth0")
		r.world.DeleteTap(a.ID)
		want := []string{"attachment " + string(a.ID) + " (web/eth0 in vm1) without its device or tap"}
		got, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, got)
		got, err = r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, got)
		assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
		r.consistent()
	})
}

// TestGCAfterLossOfTheStore starts anew beside networks that nobody knows.
func TestGCAfterLossOfTheStore(t *testing.T) {
	inRig(t, func(r *rig) {
		r.conn.Crash()
		require.NoError(r.t, r.orch.Close())
		r.store = memstore.New()
		r.start()
		_, err := r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "green", Bridge: "bf-red", External: true, Subnets: prefixes("10.3.0.0/24")})
		require.NoError(r.t, err)
		want := []string{"bridge of network blue, which does not exist"} // red's is used by green
		got, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, got)
		assert.Contains(r.t, r.world.String(), "network blue")

		r.world.Fail("removenetwork", errBoom)
		_, err = r.orch.GC(r.t.Context(), false)
		require.EqualError(r.t, err, "collect garbage: bridge of network blue, which does not exist: host: boom")
		r.world.Fail("removenetwork", nil)
		got, err = r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, got)
		assert.NotContains(r.t, r.world.String(), "network blue")
		assert.Contains(r.t, r.world.String(), "network red")
	})
}

func TestGCWithoutHost(t *testing.T) {
	inRig(t, func(r *rig) {
		r.litterStore(r.t)
		r.world.Fail("ports", errBoom)
		found, err := r.orch.GC(r.t.Context(), true)
		require.EqualError(r.t, err, "collect garbage: ask host: boom; the host was left out")
		assert.Len(r.t, found, 4)
	})
}
