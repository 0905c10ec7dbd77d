package ipam_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// rig has a store, a pool and a network.
type rig struct {
	t     *testing.T
	store store.Store
	pool  *ipam.Pool
	net   vnic.Network
}

func newRig(t *testing.T, quarantine time.Duration, subnets ...string) *rig {
	t.Helper()
	n := vnic.Network{Name: "blue"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	n, err := n.Complete()
	require.NoError(t, err)
	return &rig{t: t, store: memstore.New(), pool: ipam.New(ipam.Options{Quarantine: quarantine}), net: n}
}

func owner(i int) ipam.Owner {
	return ipam.Owner{ID: vnic.ID(fmt.Sprintf("%010d", i)), Key: vnic.Key{VM: "vm1", Pod: fmt.Sprintf("pod%d", i), Interface: "eth0"}}
}

func (r *rig) update(fn func(tx store.Tx) error) error {
	_, err := r.store.Update(r.t.Context(), fn)
	return err
}

// take leases for pod i and prints the addresses.
func (r *rig) take(i int, want ...string) (string, error) {
	r.t.Helper()
	var addrs []netip.Addr
	for _, w := range want {
		addrs = append(addrs, netip.MustParseAddr(w))
	}
	var s strings.Builder
	err := r.update(func(tx store.Tx) error {
		leases, err := r.pool.Take(tx, r.net, owner(i), addrs)
		for _, l := range leases {
			s.WriteString(l.Prefix.String() + " ")
		}
		return err
	})
	return s.String(), err
}

func (r *rig) mustTake(i int, want ...string) string {
	r.t.Helper()
	s, err := r.take(i, want...)
	require.NoError(r.t, err)
	return s
}

func (r *rig) free(i int) {
	r.t.Helper()
	require.NoError(r.t, r.update(func(tx store.Tx) error { return r.pool.Free(tx, owner(i)) }))
}

func (r *rig) leases() []ipam.Lease {
	r.t.Helper()
	var leases []ipam.Lease
	require.NoError(r.t, r.store.View(r.t.Context(), func(tx store.ReadTx) (err error) {
		leases, err = r.pool.Leases(tx)
		return err
	}))
	return leases
}

func TestTakeBothFamilies(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/29", "fd00::/64")
	assert.Equal(t, "10.1.0.2/29 fd00::2/64 ", r.mustTake(1))
	assert.Equal(t, "10.1.0.5/29 fd00::3/64 ", r.mustTake(2, "10.1.0.5"))
	assert.Equal(t, "10.1.0.3/29 fd00::ffff/64 ", r.mustTake(3, "fd00::ffff"))
	assert.Equal(t, "10.1.0.4/29 fd00::4/64 ", r.mustTake(4))
	assert.Equal(t, "10.1.0.6/29 fd00::5/64 ", r.mustTake(5), "10.1.0.5 is stepped over")
	_, err := r.take(6)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	require.EqualError(t, err, "network blue: every address of 10.1.0.0/29 is leased; "+
		"detach a pod, or use a network with a larger subnet: no free address")
	assert.Len(t, r.leases(), 10)
}

func TestTakeSmallestPools(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/30", "fd00::/126")
	assert.Equal(t, "10.1.0.2/30 fd00::2/126 ", r.mustTake(1))
	_, err := r.take(2)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	_, err = r.take(2)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted, "the same when the pool's end was reached before")
}

func TestTakeGatewayInTheMiddle(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/29")
	r.net.Gateways[0] = netip.MustParseAddr("10.1.0.2")
	assert.Equal(t, "10.1.0.1/29 ", r.mustTake(1))
	assert.Equal(t, "10.1.0.3/29 ", r.mustTake(2))
}

func TestTakeAtTheEndOfAllAddresses(t *testing.T) {
	r := newRig(t, 0, "223.255.255.252/30", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")
	r.mustTake(1)
	_, err := r.take(2)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
}

func TestTakeRefuses(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/24", "fd00::/64")
	r.mustTake(1, "10.1.0.9")
	cases := []struct {
		want, text string
		is         error
	}{
		{"10.2.0.1", "network blue: address 10.2.0.1 is not in [10.1.0.0/24 fd00::/64]; choose one in it: address outside of the pool", vnic.ErrAddressOutside},
		{"10.1.0.1", "network blue: address 10.1.0.1 is the gateway; choose another: address taken", vnic.ErrAddressTaken},
		{"10.1.0.0", "network blue: address 10.1.0.0 is no host address of 10.1.0.0/24; choose another: address outside of the pool", vnic.ErrAddressOutside},
		{"10.1.0.255", "network blue: address 10.1.0.255 is no host address of 10.1.0.0/24; choose another: address outside of the pool", vnic.ErrAddressOutside},
		{"fd00::", "network blue: address fd00:: is no host address of fd00::/64; choose another: address outside of the pool", vnic.ErrAddressOutside},
		{"10.1.0.9", "network blue: address 10.1.0.9 is leased to vm1/pod1/eth0; choose another, or detach that one: address taken", vnic.ErrAddressTaken},
	}
	for _, c := range cases {
		t.Run(c.want, func(t *testing.T) {
			_, err := r.take(2, c.want)
			require.ErrorIs(t, err, c.is)
			assert.EqualError(t, err, c.text)
		})
	}
	assert.Len(t, r.leases(), 2)
}

func TestTakeTwice(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/24")
	r.mustTake(1)
	_, err := r.take(1)
	require.ErrorIs(t, err, vnic.ErrConflict)
	assert.ErrorContains(t, err, "vm1/pod1/eth0 still holds ipam/lease/blue/10.1.0.2; run `brfuse gc`")
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 30*time.Second, "10.1.0.0/29") // .2 to .6
		assert.Equal(t, "10.1.0.2/29 ", r.mustTake(1))
		r.free(1)
		pass(10 * time.Second)
		assert.Equal(t, "10.1.0.3/29 ", r.mustTake(2), "10.1.0.2 is in quarantine")
		r.free(2)
		pass(20 * time.Second)
		assert.Equal(t, "10.1.0.2/29 ", r.mustTake(3), "its quarantine is over, so it goes before addresses never used")
		assert.Equal(t, "10.1.0.4/29 ", r.mustTake(4))
		assert.Equal(t, "10.1.0.5/29 ", r.mustTake(5))
		assert.Equal(t, "10.1.0.6/29 ", r.mustTake(6))
		assert.Equal(t, "10.1.0.3/29 ", r.mustTake(7), "there is nothing else, so its quarantine ends early")
		_, err := r.take(8)
		require.ErrorIs(t, err, vnic.ErrPoolExhausted)
		r.free(5)
		pass(time.Second)
		r.free(4)
		assert.Equal(t, "10.1.0.4/29 ", r.mustTake(9, "10.1.0.4"), "whoever asks for it by name gets it at once")
		assert.Equal(t, "10.1.0.5/29 ", r.mustTake(10))
	})
}

func TestQuarantineOff(t *testing.T) {
	r := newRig(t, -1, "10.1.0.0/29")
	r.mustTake(1)
	r.free(1)
	assert.Equal(t, "10.1.0.2/29 ", r.mustTake(2))
}

// TestFreedAheadOfPointer frees an address that was asked for by name before the
// pointer came to it: it must not be leased twice, by the queue and the pointer.
func TestFreedAheadOfPointer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 30*time.Second, "10.1.0.0/29")
		r.mustTake(1, "10.1.0.3")
		r.free(1)
		got := r.mustTake(2) + r.mustTake(3) + r.mustTake(4) + r.mustTake(5) + r.mustTake(6)
		assert.Equal(t, "10.1.0.2/29 10.1.0.4/29 10.1.0.5/29 10.1.0.6/29 10.1.0.3/29 ", got)
	})
}

func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // in a bubble of synctest

func TestMAC(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/24")
	want := vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}
	require.NoError(t, r.update(func(tx store.Tx) error {
		got, err := r.pool.TakeMAC(tx, owner(1), want)
		assert.Equal(t, want, got)
		return err
	}))
	err := r.update(func(tx store.Tx) error { _, err := r.pool.TakeMAC(tx, owner(2), want); return err })
	require.ErrorIs(t, err, vnic.ErrAddressTaken)
	require.EqualError(t, err, "mac 02:00:5e:00:53:01 is that of vm1/pod1/eth0; choose another, or detach that one: address taken")
	require.NoError(t, r.update(func(tx store.Tx) error { return r.pool.FreeMAC(tx, owner(2), want) }))
	require.NoError(t, r.store.View(t.Context(), func(tx store.ReadTx) error {
		macs, err := r.pool.MACs(tx)
		assert.Equal(t, []ipam.MACLease{{MAC: want, Owner: owner(1)}}, macs, "only its owner frees it")
		return err
	}))
	require.NoError(t, r.update(func(tx store.Tx) error { return r.pool.FreeMAC(tx, owner(1), want) }))
	require.NoError(t, r.update(func(tx store.Tx) error {
		got, err := r.pool.TakeMAC(tx, owner(2), vnic.MAC{})
		assert.False(t, got.IsZero())
		return err
	}))
}

func TestForget(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/24", "fd00::/64")
	r.mustTake(1)
	r.free(1)
	require.NoError(t, r.update(func(tx store.Tx) error { return r.pool.Forget(tx, "blue") }))
	require.NoError(t, r.store.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("", 0)
		assert.Empty(t, items)
		return err
	}))
}

// TestProperty takes and frees at random: an address is never leased twice nor
// out of place, an exhausted pool is really full, and all addresses come back.
func TestProperty(t *testing.T) {
	for _, c := range []struct {
		subnets []string
		size    int
	}{{[]string{"10.1.0.0/28"}, 13}, {[]string{"fd00::/124"}, 13}, {[]string{"10.1.0.0/26", "fd00::/64"}, 61}} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%v %d", c.subnets, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, 5*time.Second, c.subnets...)
					p := property{rig: r, rnd: rand.New(rand.NewPCG(seed, 0)), size: c.size, held: map[int]string{}} //nolint:gosec // to be repeatable
					for range 600 {
						p.step()
					}
					for i := range p.held {
						r.free(i)
					}
					assert.Empty(t, r.leases())
					for i := range c.size {
						r.mustTake(1000 + i)
					}
					_, err := r.take(9999)
					require.ErrorIs(t, err, vnic.ErrPoolExhausted)
				})
			})
		}
	}
}

type property struct {
	*rig
	rnd  *rand.Rand
	size int            // addresses of the first subnet
	held map[int]string // by pod, what was leased
	next int
}

func (p *property) step() {
	p.t.Helper()
	switch n := p.rnd.IntN(10); {
	case n < 4:
		p.takeAny(nil)
	case n < 6:
		a := p.net.Subnets[0].Addr()
		for range p.rnd.IntN(p.size + 4) {
			a = a.Next()
		}
		p.takeAny([]string{a.String()})
	case n < 9:
		for i := range p.held {
			p.free(i)
			delete(p.held, i)
			break
		}
	default:
		pass(time.Duration(p.rnd.IntN(4000)) * time.Millisecond)
	}
	leases := p.leases()
	require.Len(p.t, leases, len(p.held)*len(p.net.Subnets))
	for _, l := range leases {
		subnet, ok := p.net.Subnet(l.Address)
		require.True(p.t, ok)
		require.NotEqual(p.t, subnet.Addr(), l.Address)
		require.NotEqual(p.t, vnic.LastAddr(subnet), l.Address)
		require.NotContains(p.t, p.net.Gateways, l.Address)
	}
}

func (p *property) takeAny(want []string) {
	p.t.Helper()
	p.next++
	got, err := p.take(p.next, want...)
	if err != nil {
		if want == nil {
			require.ErrorIs(p.t, err, vnic.ErrPoolExhausted)
			require.Len(p.t, p.held, p.size)
		}
		return
	}
	for _, other := range p.held {
		require.NotEqual(p.t, other, got)
	}
	p.held[p.next] = got
}

// countTx counts what a transaction costs.
type countTx struct {
	store.Tx
	ops, items int
}

func (c *countTx) Get(k string) (store.Item, error) { c.ops++; return c.Tx.Get(k) }
func (c *countTx) Put(k string, v []byte) error     { c.ops++; return c.Tx.Put(k, v) }
func (c *countTx) Delete(k string) error            { c.ops++; return c.Tx.Delete(k) }
func (c *countTx) Scan(p string, n int) ([]store.Item, error) {
	c.ops++
	items, err := c.Tx.Scan(p, n)
	c.items += len(items)
	return items, err
}

// TestCostIsConstant has a lease cost the same in a full /16 as in an empty one.
func TestCostIsConstant(t *testing.T) {
	r := newRig(t, -1, "10.1.0.0/16")
	cost := func(i int) (ops int) {
		require.NoError(t, r.update(func(tx store.Tx) error {
			c := &countTx{Tx: tx}
			_, err := r.pool.Take(c, r.net, owner(i), nil)
			ops = c.ops
			assert.LessOrEqual(t, c.items, 1)
			return err
		}))
		return ops
	}
	cost(0) // it steps over the gateway
	first := cost(1)
	for i := 2; i < 4000; i++ {
		r.mustTake(i)
	}
	assert.Equal(t, first, cost(4000))
	for i := range 2000 {
		r.free(i)
	}
	assert.LessOrEqual(t, cost(4001), first+2, "with a long queue too")
}
