package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// pooled is a vNIC of a pool as it is stored.
type pooled struct {
	ID          vnic.ID
	VM, Network string
	State       string
	Attachment  vnic.ID
	MAC         vnic.MAC
	Slot        string
	GuestPCI    string
}

// inPool runs a test with a pool of low to high vNICs of network blue in vm1.
func inPool(t *testing.T, low, high int, test func(r *rig)) {
	t.Helper()
	inRig(t, func(r *rig) {
		r.setPool(low, high)
		require.Equal(r.t, low, r.status().Parked)
		test(r)
	})
}

// setPool sets the pool of blue in vm1, and waits until it is filled.
func (r *rig) setPool(low, high int) {
	r.t.Helper()
	require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: low, High: high}))
	synctest.Wait()
}

// status returns what there is of the only pool.
func (r *rig) status() vnic.PoolStatus {
	r.t.Helper()
	list, err := r.orch.Pools(r.t.Context())
	require.NoError(r.t, err)
	require.Len(r.t, list, 1)
	return list[0]
}

// vnics returns the vNICs of pools, also those that attachments have.
func (r *rig) vnics() []pooled {
	r.t.Helper()
	var list []pooled
	require.NoError(r.t, r.store.View(r.t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("vnic/", 0)
		list = make([]pooled, len(items))
		for i, it := range items {
			if err := json.Unmarshal(it.Value, &list[i]); err != nil {
				return err
			}
		}
		return err
	}))
	return list
}

// parked returns the ids of those that are parked.
func (r *rig) parked() []vnic.ID {
	r.t.Helper()
	var ids []vnic.ID
	for _, p := range r.vnics() {
		if p.State == "parked" {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

func (r *rig) detach(a vnic.Attachment) vnic.Attachment {
	r.t.Helper()
	got, err := r.orch.Detach(r.t.Context(), a.ID)
	require.NoError(r.t, err)
	require.Equal(r.t, vnic.PhaseReleased, got.Phase)
	return got
}

// consistentPools checks that each vNIC of a pool is parked, or taken by one
// attachment which says so too; that parked ones are like new, on both sides and in
// the store; and that there is no other in the world.
func (r *rig) consistentPools() {
	r.t.Helper()
	require.Empty(r.t, r.world.Wrong())
	world, leases := r.world.String(), r.leases()
	devices := map[vnic.ID]string{} // who has it
	macs := map[vnic.MAC]vnic.ID{}
	for _, a := range r.all() {
		require.Empty(r.t, devices[a.VNIC()], "two attachments have vnic %s", a.VNIC())
		require.Empty(r.t, macs[a.MAC], "two vnics have mac %s", a.MAC)
		devices[a.VNIC()], macs[a.MAC] = string(a.ID), a.VNIC()
	}
	idle := 0
	for _, p := range r.vnics() {
		require.Contains(r.t, []string{"parked", "taken"}, p.State)
		if p.State == "taken" {
			require.Equal(r.t, string(p.Attachment), devices[p.ID], "vnic %s", p.ID)
			require.Equal(r.t, p.ID, macs[p.MAC])
			continue
		}
		idle++
		require.Empty(r.t, devices[p.ID], "parked vnic %s is an attachment's", p.ID)
		require.Empty(r.t, macs[p.MAC], "two vnics have mac %s", p.MAC)
		devices[p.ID], macs[p.MAC] = "pool", p.ID
		require.Contains(r.t, leases, fmt.Sprintf("idle/%s/%s/parked/%s", p.VM, p.Network, p.ID))
		require.Contains(r.t, world, fmt.Sprintf("tap %s of %s in no bridge", p.ID, p.VM))
		require.Regexp(r.t, fmt.Sprintf(`(?m)^%s: root: %s %s down$`, p.VM, p.ID.LinkName(), p.MAC), world, "it is like new")
		require.NotRegexp(r.t, `(?m)^(port|limit) .* of `+string(p.ID)+"$", world)
	}
	require.Equal(r.t, idle, strings.Count(leases, "idle/"))
	require.Equal(r.t, len(devices), strings.Count(leases, "ipam/mac/"), "macs of nobody are leased")
	require.Equal(r.t, len(devices), strings.Count(world, ": device "), "nobody's devices")
	require.Equal(r.t, len(devices), strings.Count(world, "tap "), "nobody's taps")
}

// settled checks that, and that the pool has as many as it should.
func (r *rig) settled() {
	r.t.Helper()
	r.consistent()
	st := r.status()
	require.GreaterOrEqual(r.t, st.Parked, st.Low, st.LastError)
	require.LessOrEqual(r.t, st.Parked, st.High)
	require.Zero(r.t, st.Filling)
	require.Empty(r.t, st.LastError)
}

// countingStore counts transactions.
type countingStore struct {
	store.Store
	views, updates atomic.Int64
}

func (s *countingStore) View(ctx context.Context, fn func(store.ReadTx) error) error {
	s.views.Add(1)
	return s.Store.View(ctx, fn)
}

func (s *countingStore) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	s.updates.Add(1)
	return s.Store.Update(ctx, fn)
}

// stepNames lists the names of an attachment's steps, sorted.
func stepNames(a vnic.Attachment) []string {
	var names []string
	for _, t := range a.Timings {
		names = append(names, t.Step)
	}
	slices.Sort(names)
	return names
}

// litterPool stores a vNIC of the pool of blue that nobody accounts for.
func (r *rig) litterPool(id vnic.ID, vm, state string, attachment vnic.ID) {
	r.t.Helper()
	mac := vnic.NewMAC()
	b, err := json.Marshal(map[string]any{
		"id": id, "vm": vm, "network": "blue", "state": state, "attachment": attachment, "mac": mac, "mtu": 1500, "queues": 1,
	})
	require.NoError(r.t, err)
	_, err = r.store.Update(r.t.Context(), func(tx store.Tx) error {
		owner := ipam.Owner{ID: id, Key: vnic.Key{VM: vm}}
		if _, err := ipam.New(ipam.Options{}).TakeMAC(tx, owner, mac); err != nil {
			return err
		}
		if state != "taken" {
			if err := tx.Put(fmt.Sprintf("idle/%s/blue/%s/%s", vm, state, id), []byte(id)); err != nil {
				return err
			}
		}
		return tx.Put("vnic/"+string(id), b)
	})
	require.NoError(r.t, err)
}
