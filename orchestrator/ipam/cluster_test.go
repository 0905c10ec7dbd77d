package ipam_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
	"github.com/brfuse/brfuse/vnic"
)

// cluster is some hypervisors on one store, a rig each.
type cluster struct {
	t    *testing.T
	raw  *recorder
	hv   map[string]*rig
	pods int
}

func newCluster(t *testing.T, quarantine time.Duration, names string, subnets ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, raw: &recorder{Store: memstore.New()}, hv: map[string]*rig{}}
	for name := range strings.FieldsSeq(names) {
		r := newRig(t, quarantine, subnets...)
		r.store = scoped.New(c.raw, "on/"+name+"/", ipam.OwnPrefixes())
		r.pool = ipam.New(ipam.Options{Quarantine: quarantine, Hypervisor: name})
		c.hv[name] = r
	}
	return c
}

// must leases some addresses on a hypervisor, and returns the pod of the first.
func (c *cluster) must(name string, n int) int {
	c.t.Helper()
	first := c.pods
	for range n {
		c.hv[name].mustTake(c.pods)
		c.pods++
	}
	return first
}

// one leases an address on a hypervisor.
func (c *cluster) one(name string, want ...string) string {
	c.t.Helper()
	c.pods++
	return strings.TrimSpace(c.hv[name].mustTake(c.pods-1, want...))
}

func (c *cluster) freeAll(name string) {
	c.t.Helper()
	for _, l := range c.hv[name].leases() {
		require.NoError(c.t, c.hv[name].update(func(tx store.Tx) error { return c.hv[name].pool.FreeLease(tx, l) }))
	}
}

// ahead returns an address that is not leased, in a block that the hypervisor leases from.
func (c *cluster) ahead(name string) netip.Addr {
	c.t.Helper()
	leased := c.keys("ipam/lease/blue/")
	for _, l := range c.hv[name].leases() {
		next := l.Address.Next()
		if l.Address.Is4() && next.As4()[3]%64 != 0 && !slices.Contains(leased, "ipam/lease/blue/"+next.String()) {
			return next
		}
	}
	require.Fail(c.t, "all is leased")
	return netip.Addr{}
}

func (c *cluster) giveBack(name string) int {
	c.t.Helper()
	n, err := c.hv[name].pool.GiveBack(c.t.Context(), c.hv[name].store, c.hv[name].net)
	require.NoError(c.t, err)
	return n
}

// keys returns the keys of the shared store with that prefix.
func (c *cluster) keys(prefix string) []string {
	c.t.Helper()
	var keys []string
	require.NoError(c.t, c.raw.View(c.t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan(prefix, 0)
		for _, it := range items {
			keys = append(keys, it.Key)
		}
		return err
	}))
	return keys
}

func (c *cluster) inUse() string {
	c.t.Helper()
	var first string
	require.NoError(c.t, c.raw.View(c.t.Context(), func(tx store.ReadTx) error {
		in, f, err := ipam.New(ipam.Options{}).InUse(tx, "blue")
		assert.Equal(c.t, in, f != "")
		first = f
		return err
	}))
	return first
}

// claimed returns how many blocks are claimed by whom.
func (c *cluster) claimed() map[string]int {
	c.t.Helper()
	claimed := map[string]int{}
	require.NoError(c.t, c.raw.View(c.t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("ipam/block/", 0)
		for _, it := range items {
			var b struct{ Hypervisor string }
			require.NoError(c.t, json.Unmarshal(it.Value, &b))
			claimed[b.Hypervisor]++
		}
		return err
	}))
	return claimed
}

// TestClaim has each hypervisor lease the addresses of blocks of its own in order.
func TestClaim(t *testing.T) {
	c := newCluster(t, 0, "hv1 hv2", "10.1.0.0/24", "fd00::/64")
	blocks := map[string]string{}
	for range 14 {
		for name, r := range c.hv {
			c.must(name, 1)
			for _, l := range r.leases() {
				block := netip.PrefixFrom(l.Address, 28+94*(l.Address.BitLen()-32)/96).Masked().String()
				if old, ok := blocks[block]; ok {
					require.Equal(t, name, old, block)
				}
				blocks[block] = name
			}
		}
	}
	for name, r := range c.hv {
		assert.Len(t, r.leases(), 28)
		assert.LessOrEqual(t, c.claimed()[name], 3, "one of IPv6, and of IPv4 two where the first has the gateway or the last address")
	}
	for _, l := range c.hv["hv2"].leases() {
		assert.Equal(t, "hv2", l.Hypervisor)
	}
	for _, k := range c.keys("ipam/block/blue/4/") {
		assert.Regexp(t, "^ipam/block/blue/4/0a0100[0-9a-f]0$", k)
	}
	for _, k := range c.keys("ipam/block/blue/6/") {
		assert.Regexp(t, "^ipam/block/blue/6/fd0{24}[0-9a-f]{4}[048c]0$", k)
	}
}

// TestStaticInAnothersBlock: an address that was asked for by name is leased out of
// any block, whose hypervisor steps over it, and which it is free for afterwards.
func TestStaticInAnothersBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 30*time.Second, "hv1 hv2", "10.1.0.0/22")
		first := netip.MustParsePrefix(c.one("hv1"))
		at := func(n int) netip.Prefix {
			a := first.Addr()
			for range n {
				a = a.Next()
			}
			return netip.PrefixFrom(a, 22)
		}
		assert.Equal(t, at(2).String(), c.one("hv2", at(2).Addr().String()))
		_, err := c.hv["hv1"].take(900, at(2).Addr().String())
		require.ErrorIs(t, err, vnic.ErrAddressTaken)
		require.ErrorContains(t, err, "is leased to vm1/pod1/eth0 on hypervisor hv2; choose another, or detach that one")
		assert.Equal(t, at(1).String(), c.one("hv1"))
		assert.Equal(t, at(3).String(), c.one("hv1"))
		c.freeAll("hv2")
		assert.Empty(t, c.keys("on/hv2/ipam/queue/"), "it is in no block of hv2's")
		assert.Equal(t, at(4).String(), c.one("hv1"))
		c.freeAll("hv1")
		pass(time.Minute)
		assert.Equal(t, first.String(), c.one("hv2", first.Addr().String()), "though it is in hv1's queue")
		assert.Equal(t, at(1).String(), c.one("hv1"), "so that hv1 leases the next of its queue")
		assert.NotContains(t, c.keys("on/hv1/ipam/freed/"), "on/hv1/ipam/freed/blue/"+first.Addr().String())
	})
}

// TestStaticFillsABlock that nobody has claimed: it is not claimed then, and again
// open when an address of it is given back.
func TestStaticFillsABlock(t *testing.T) {
	c := newCluster(t, 0, "hv1 hv2", "10.1.0.0/29") // .2 and .3; .4 to .6
	c.one("hv1", "10.1.0.2")
	last := c.pods
	c.one("hv1", "10.1.0.3")
	assert.Equal(t, map[string]int{"": 1}, c.claimed())
	c.must("hv2", 3)
	assert.Equal(t, map[string]int{"": 1, "hv2": 1}, c.claimed())
	_, err := c.hv["hv2"].take(900)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	c.hv["hv1"].free(last)
	assert.Equal(t, "10.1.0.3/29", c.one("hv2"))
	assert.Equal(t, map[string]int{"hv2": 2}, c.claimed())
}

// TestClaimOfLeased: a block that somebody leases from by name can be claimed, and is
// then known as its claimant's.
func TestClaimOfLeased(t *testing.T) {
	c := newCluster(t, 0, "hv1 hv2", "10.1.0.0/24")
	for i := range 16 {
		c.one("hv1", fmt.Sprintf("10.1.0.%d", 16*i+2))
	}
	c.must("hv2", 1)
	assert.Equal(t, map[string]int{"": 15, "hv2": 1}, c.claimed())
	spare := map[string]int{}
	require.NoError(t, c.raw.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("ipam/spare/", 0)
		for _, it := range items {
			spare[string(it.Value)]++
		}
		return err
	}))
	assert.Equal(t, c.claimed(), spare)
}

// TestBorrow: who finds no open block leases out of others', from their ends, until
// all is leased.
func TestBorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 30*time.Second, "hv1 hv2 hv3", "10.1.0.0/29")
		c.must("hv1", 1)
		c.must("hv2", 1)
		got := []string{c.one("hv3"), c.one("hv3")}
		slices.Sort(got)
		assert.Subset(t, []string{"10.1.0.3/29", "10.1.0.5/29", "10.1.0.6/29"}, got, "their blocks' ends")
		assert.Equal(t, map[string]int{"hv1": 1, "hv2": 1}, c.claimed())
		for _, name := range []string{"hv1", "hv2", "hv3"} {
			require.NoError(t, c.hv[name].room())
		}
		c.must("hv3", 1)
		for i, name := range []string{"hv1", "hv2", "hv3"} {
			_, err := c.hv[name].take(900 + i)
			require.ErrorIs(t, err, vnic.ErrPoolExhausted)
			require.ErrorIs(t, c.hv[name].room(), vnic.ErrPoolExhausted)
		}
		c.hv["hv1"].free(0)
		for _, name := range []string{"hv1", "hv2", "hv3"} {
			require.NoError(t, c.hv[name].room())
		}
		c.must("hv1", 1) // before its time, as nothing else is left
		assert.Empty(t, c.keys("on/hv1/ipam/queue/"))
	})
}

// TestGiveBack gives back blocks once they are empty and their quarantine is over,
// with at most 100 operations in a transaction, and leaves nothing.
func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 30*time.Second, "hv1 hv2", "10.1.0.0/20", "fd00::/64")
		c.must("hv1", 200)
		c.must("hv2", 1)
		assert.Zero(t, c.giveBack("hv1"), "all are in use")
		keep := c.hv["hv1"].leases()[0]
		for _, l := range c.hv["hv1"].leases() {
			if l.Owner != keep.Owner {
				require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error { return c.hv["hv1"].pool.FreeLease(tx, l) }))
			}
		}
		pass(29 * time.Second)
		assert.Zero(t, c.giveBack("hv1"), "in quarantine")
		pass(time.Second)
		before := c.claimed()["hv1"]
		require.GreaterOrEqual(t, before, 8)
		c.raw.most = 0
		assert.Equal(t, before-2, c.giveBack("hv1"))
		assert.LessOrEqual(t, c.raw.most, 100)
		assert.Equal(t, map[string]int{"hv1": 2, "hv2": 2}, c.claimed())
		assert.Len(t, c.keys("on/hv1/ipam/freed/"), len(c.keys("on/hv1/ipam/queue/")))
		assert.LessOrEqual(t, len(c.keys("on/hv1/ipam/queue/")), 126, "of two blocks only")
		c.freeAll("hv1")
		c.freeAll("hv2")
		pass(30 * time.Second)
		assert.Equal(t, 2, c.giveBack("hv1"))
		assert.Equal(t, 2, c.giveBack("hv2"))
		assert.Empty(t, c.keys(""))
	})
}

func TestGiveBackOfOne(t *testing.T) {
	r := newRig(t, -1, "10.1.0.0/24")
	r.mustTake(1)
	r.free(1)
	n, err := r.pool.GiveBack(t.Context(), r.store, r.net)
	require.NoError(t, err)
	assert.Zero(t, n, "one hypervisor shares with nobody")
}

// TestMadeAnew: a hypervisor that was away while a network was removed and made anew
// by another one leases by what is true now.
func TestMadeAnew(t *testing.T) {
	for _, subnet := range []string{"10.1.0.0/24", "10.2.0.0/26"} {
		t.Run(subnet, func(t *testing.T) {
			c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/24")
			c.must("hv1", 20)
			c.freeAll("hv1")
			c.must("hv1", 3)
			c.freeAll("hv1")
			require.NoError(t, c.hv["hv2"].update(func(tx store.Tx) error {
				for _, err := range []error{c.hv["hv2"].pool.Forget(tx, "blue"), c.hv["hv2"].pool.ForgetShared(tx, "blue")} {
					require.NoError(t, err)
				}
				return nil
			}))
			n, err := vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}}.Complete()
			require.NoError(t, err)
			c.hv["hv1"].net, c.hv["hv2"].net = n, n
			size := 1<<(32-n.Subnets[0].Bits()) - 3
			c.must("hv2", size/2)
			c.must("hv1", size-size/2)
			_, err = c.hv["hv1"].take(900)
			require.ErrorIs(t, err, vnic.ErrPoolExhausted)
			c.freeAll("hv1")
			c.freeAll("hv2")
			c.giveBack("hv1")
			c.giveBack("hv2")
			assert.Empty(t, c.keys(""))
		})
	}
}

// TestOwnOnly: what a hypervisor lists as leased is its own, reservations among it.
func TestOwnOnly(t *testing.T) {
	c := newCluster(t, 0, "hv1 hv2", "10.1.0.0/24")
	assert.Empty(t, c.inUse())
	mac := vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}
	_, err := c.hv["hv1"].reserve("10.1.0.77", false)
	require.NoError(t, err)
	assert.Equal(t, "10.1.0.77 is reserved for vm vm1 on hypervisor hv1", c.inUse())
	_, err = c.hv["hv2"].take(5, "10.1.0.77")
	require.ErrorContains(t, err, "is reserved for vm vm1 on hypervisor hv1; choose another")
	require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error {
		_, err := c.hv["hv1"].pool.TakeMAC(tx, owner(1), mac)
		return err
	}))
	err = c.hv["hv2"].update(func(tx store.Tx) error { _, err := c.hv["hv2"].pool.TakeMAC(tx, owner(2), mac); return err })
	require.EqualError(t, err, "mac 02:00:5e:00:53:01 is that of vm1/pod1/eth0 on hypervisor hv1; choose another, or detach that one: address taken")
	c.must("hv1", 2)
	c.must("hv2", 1)
	macs := func(name string) (list []ipam.MACLease) {
		require.NoError(t, c.hv[name].store.View(t.Context(), func(tx store.ReadTx) (err error) {
			list, err = c.hv[name].pool.MACs(tx)
			return err
		}))
		return list
	}
	assert.Len(t, c.hv["hv1"].leases(), 3)
	assert.Len(t, c.hv["hv2"].leases(), 1)
	assert.Equal(t, []ipam.MACLease{{MAC: mac, Owner: owner(1)}}, macs("hv1"))
	assert.Empty(t, macs("hv2"))
	require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error { return c.hv["hv1"].pool.FreeMAC(tx, owner(1), mac) }))
	assert.Empty(t, macs("hv1"))
	assert.Empty(t, c.keys("ipam/mac/"))
	c.hv["hv1"].unreserve("vm1", "10.1.0.77")
	assert.NotContains(t, c.keys("ipam/lease/"), "ipam/lease/blue/10.1.0.77")
}

// TestFreeLeaseOfAnother: an address that was leased anew meanwhile stays so.
func TestFreeLeaseOfAnother(t *testing.T) {
	c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/24")
	c.one("hv1", "10.1.0.9")
	old := c.hv["hv1"].leases()[0]
	c.freeAll("hv1")
	c.one("hv2", "10.1.0.9")
	require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error { return c.hv["hv1"].pool.FreeLease(tx, old) }))
	assert.Len(t, c.hv["hv2"].leases(), 1)
	assert.Equal(t, []string{"ipam/lease/blue/10.1.0.9"}, c.keys("ipam/lease/"))
}

// TestTakeOverShared: an attachment takes over a reserved address, and gives it back.
func TestTakeOverShared(t *testing.T) {
	c := newCluster(t, -1, "hv1", "10.1.0.0/29")
	r := c.hv["hv1"]
	_, err := r.reserve("10.1.0.5", false)
	require.NoError(t, err)
	want := []netip.Addr{netip.MustParseAddr("10.1.0.5")}
	require.NoError(t, r.update(func(tx store.Tx) error {
		if err := r.pool.TakeOver(tx, "vm1", "blue", want); err != nil {
			return err
		}
		_, err := r.pool.Take(tx, r.net, owner(1), want)
		return err
	}))
	assert.Equal(t, owner(1), r.leases()[0].Owner)
	r.free(1)
	assert.Empty(t, c.keys(""))
}

// TestReleaseHypervisor releases all that a dead hypervisor held, but not what
// others lease from its blocks, with at most 100 operations in a transaction.
func TestReleaseHypervisor(t *testing.T) {
	c := newCluster(t, -1, "hv1 hv2", "10.1.0.0/20", "fd00::/64")
	c.must("hv1", 150)
	c.freeAll("hv1")
	first := c.must("hv1", 150)
	require.NoError(t, c.hv["hv1"].update(func(tx store.Tx) error {
		_, err := c.hv["hv1"].pool.TakeMAC(tx, owner(first), vnic.MAC{})
		return err
	}))
	_, err := c.hv["hv1"].reserve("10.1.0.99", false)
	require.NoError(t, err)
	c.one("hv2", c.ahead("hv1").String())
	held := len(c.hv["hv2"].leases())
	c.raw.most = 0
	n, err := ipam.ReleaseHypervisor(t.Context(), c.raw, "on/hv1/", "hv1")
	require.NoError(t, err)
	assert.Equal(t, 301, n)
	assert.LessOrEqual(t, c.raw.most, 100)
	assert.Empty(t, c.keys("on/hv1/"))
	assert.Empty(t, c.keys("ipam/mac/"))
	assert.Len(t, c.keys("ipam/lease/"), held)
	assert.NotContains(t, c.claimed(), "hv1")
	assert.Equal(t, 1, c.claimed()[""], "there hv2 leases something")
	n, err = ipam.ReleaseHypervisor(t.Context(), c.raw, "on/hv1/", "hv1")
	require.NoError(t, err)
	assert.Zero(t, n, "it may be repeated")
	c.freeAll("hv2")
	c.giveBack("hv2")
	assert.Empty(t, c.keys(""))
}

// TestLeaseTouchesNothingOfOthers: within its block, a lease costs the same however
// full the pool is, and of what it reads and writes no other hypervisor writes anything.
func TestLeaseTouchesNothingOfOthers(t *testing.T) {
	names := "hv1 hv2 hv3 hv4"
	c := newCluster(t, -1, names, "10.1.0.0/16")
	touched := map[string]map[string]bool{} // by hypervisor, the keys
	wrote := map[string]map[string]bool{}
	var ops []int
	for i := range 400 {
		for name := range strings.FieldsSeq(names) {
			c.raw.reset()
			pod := c.must(name, 1)
			if len(c.raw.claims()) > 0 {
				continue
			}
			if touched[name] == nil {
				touched[name], wrote[name] = map[string]bool{}, map[string]bool{}
			}
			for k := range c.raw.read {
				touched[name][k] = true
			}
			for k := range c.raw.wrote {
				touched[name][k], wrote[name][k] = true, true
			}
			if c.raw.filled() {
				continue
			}
			ops = append(ops, c.raw.ops)
			if i%3 == 0 {
				c.hv[name].free(pod)
			}
		}
	}
	assert.LessOrEqual(t, slices.Max(ops), 15)
	assert.LessOrEqual(t, slices.Max(ops)-slices.Min(ops), 4, "with the queue's head, or without")
	for a, keys := range touched {
		for b, theirs := range wrote {
			for k := range keys {
				require.False(t, a != b && theirs[k], "%s, of %s and %s", k, a, b)
			}
		}
	}
}

// TestClaimsMeetSeldom: hypervisors that claim their first block at once meet at a
// node of the tree with few others.
func TestClaimsMeetSeldom(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	c := newCluster(t, 0, strings.Join(names, " "), "10.1.0.0/16")
	met := map[string]int{}
	for _, name := range names {
		c.raw.reset()
		c.must(name, 1)
		for k := range c.raw.wrote {
			met[k]++
		}
		assert.LessOrEqual(t, c.raw.ops, 30)
	}
	for k, n := range met {
		assert.LessOrEqual(t, n, 16, k)
	}
	assert.Len(t, c.claimed(), 100)
}
