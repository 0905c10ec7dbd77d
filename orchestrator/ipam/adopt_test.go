package ipam_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// TestAdopt goes on in a cluster with what a single hypervisor leased.
func TestAdopt(t *testing.T) {
	c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/26", "fd00::/64")
	single := newRig(t, time.Hour, "10.1.0.0/26", "fd00::/64")
	for i := range 20 {
		single.mustTake(i)
	}
	for i := range 5 {
		single.free(i)
	}
	_, err := single.reserve("10.1.0.50", false)
	require.NoError(t, err)
	require.NoError(t, single.update(func(tx store.Tx) error { _, err := single.pool.TakeMAC(tx, owner(9), vnic.MAC{}); return err }))
	require.NoError(t, single.store.View(t.Context(), func(from store.ReadTx) error {
		items, err := from.Scan("", 0)
		require.NoError(t, err)
		return c.hv["hv1"].update(func(to store.Tx) error {
			for _, it := range items {
				if err := to.Put(it.Key, it.Value); err != nil {
					return err
				}
			}
			return nil
		})
	}))

	err = c.hv["hv1"].pool.Adopt(t.Context(), c.hv["hv1"].store, nil)
	require.ErrorIs(t, err, vnic.ErrUnknownNetwork)
	c.raw.most = 0
	for range 2 {
		require.NoError(t, c.hv["hv1"].pool.Adopt(t.Context(), c.hv["hv1"].store, []vnic.Network{single.net}))
	}
	assert.LessOrEqual(t, c.raw.most, 100)
	assert.Len(t, c.hv["hv1"].leases(), 31)
	require.NoError(t, c.hv["hv1"].store.View(t.Context(), func(tx store.ReadTx) error {
		macs, err := c.hv["hv1"].pool.MACs(tx)
		assert.Len(t, macs, 1)
		return err
	}))

	c.pods = 100
	c.must("hv2", 22)
	c.must("hv1", 61-16-22)
	for _, r := range c.hv {
		_, err := r.take(900)
		require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	}
	c.hv["hv1"].free(19)
	assert.Contains(t, c.one("hv1"), "10.1.0.21/26", "the address of the one that was just freed")
	n, err := ipam.ReleaseHypervisor(t.Context(), c.raw, "on/hv1/", "hv1")
	require.NoError(t, err)
	assert.Equal(t, 31+2*(61-16-22), n)
	assert.Empty(t, c.keys("ipam/mac/"))
	c.freeAll("hv2")
	c.giveBack("hv2")
	assert.Empty(t, c.keys(""))
}
