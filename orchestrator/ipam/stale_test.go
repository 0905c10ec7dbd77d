package ipam_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
)

// lost returns a cluster in which a block that hv1 believes to have, with an address
// queued, is another's, whose name is returned too.
func lost(t *testing.T) (c *cluster, a netip.Prefix, other string) {
	t.Helper()
	const subnet = "10.1.0.0/22"
	want := newCluster(t, -1, "hv1", subnet).one("hv1")
	for i := 0; other == ""; i++ {
		name := fmt.Sprintf("other%d", i)
		if newCluster(t, -1, name, subnet).one(name) == want {
			other = name
		}
	}
	c = newCluster(t, -1, "hv1 "+other, subnet)
	require.Equal(t, want, c.one("hv1"))
	c.freeAll("hv1")
	require.NoError(t, c.hv[other].update(func(tx store.Tx) error { return c.hv[other].pool.ForgetShared(tx, "blue") }))
	require.Equal(t, want, c.one(other))
	return c, netip.MustParsePrefix(want), other
}

// TestLostBlock: a hypervisor leases nothing more out of a block that it has lost.
func TestLostBlock(t *testing.T) {
	c, a, other := lost(t)
	c.freeAll(other)
	next := netip.MustParsePrefix(c.one("hv1"))
	assert.NotEqual(t, netip.PrefixFrom(a.Addr(), 26).Masked(), netip.PrefixFrom(next.Addr(), 26).Masked())
	assert.Equal(t, map[string]int{"hv1": 1, other: 1}, c.claimed())
}

// TestReleaseLeavesOthers: what the keys of a dead hypervisor lead to, but is no
// longer its own, stays.
func TestReleaseLeavesOthers(t *testing.T) {
	c, a, other := lost(t)
	_, err := c.raw.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put("on/hv1/ipam/owner/vm1/pod9/eth0/4", []byte("ipam/lease/blue/"+a.Addr().String()))
	})
	require.NoError(t, err)
	n, err := ipam.ReleaseHypervisor(t.Context(), c.raw, "on/hv1/", "hv1")
	require.NoError(t, err)
	assert.Zero(t, n)
	assert.Len(t, c.hv[other].leases(), 1)
	assert.Len(t, c.keys("ipam/lease/"), 1)
	assert.Equal(t, map[string]int{other: 1}, c.claimed())
}

// TestHole: the hypervisor of a full block leases what another one gave back in it,
// when nothing else is left.
func TestHole(t *testing.T) {
	c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/29")
	c.one("hv2", "10.1.0.3")
	c.must("hv1", 4)
	c.freeAll("hv2")
	assert.Equal(t, "10.1.0.3/29", c.one("hv1"))
}

// TestManyStale: when more of a queue is stale than one transaction drops, the rest
// is found without it, and leaves the queue.
func TestManyStale(t *testing.T) {
	c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/28")
	c.must("hv1", 13)
	leases := c.hv["hv1"].leases()
	for _, l := range leases {
		require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error { return c.hv["hv1"].pool.FreeLease(tx, l) }))
	}
	for _, l := range leases[:8] {
		c.one("hv2", l.Address.String())
	}
	c.must("hv1", 1)
	assert.Len(t, c.keys("on/hv1/ipam/queue/"), 4)
	assert.Len(t, c.keys("on/hv1/ipam/freed/"), 4)
	c.must("hv1", 4)
	assert.Empty(t, c.keys("on/hv1/ipam/queue/"))
}
