package ipam_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// TestCrowd has several hypervisors take, free and give back at random and at the
// same time, and some of them die: an address is never leased twice, a pool that is
// said to be exhausted is, and all comes back.
func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		subnets     []string
		size, hosts int
		quarantine  time.Duration
	}{
		{[]string{"10.1.0.0/29"}, 5, 4, 5 * time.Second},
		{[]string{"10.1.0.0/26"}, 61, 6, 5 * time.Second},
		{[]string{"fd00::/121"}, 125, 4, -1},
		{[]string{"10.1.0.0/24", "fd00::/64"}, 253, 20, 5 * time.Second},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%v %d", c.subnets, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var names []string
					for i := range c.hosts {
						names = append(names, fmt.Sprintf("hv%d", i))
					}
					crowd := &crowd{cluster: newCluster(t, c.quarantine, strings.Join(names, " "), c.subnets...), size: c.size, held: map[netip.Addr]int{}}
					crowd.run(names, seed)
					crowd.end(names)
				})
			})
		}
	}
}

// crowd is what hypervisors at random do with a cluster.
type crowd struct {
	*cluster
	size int // addresses of the first subnet

	mu   sync.Mutex
	held map[netip.Addr]int // guarded by mu; by address, whose it is
}

// run has each hypervisor be busy for a while.
func (c *crowd) run(names []string, seed uint64) {
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			m := member{crowd: c, rig: c.hv[name], name: name, rnd: rand.New(rand.NewPCG(seed, uint64(i))), next: 1000 * i} //nolint:gosec // to be repeatable
			for range 150 {
				if err := m.step(); err != nil {
					assert.NoError(c.t, err, name)
					return
				}
			}
		})
	}
	wg.Wait()
}

// end has some of the hypervisors die, checks the books, and uses all of the pool.
func (c *crowd) end(names []string) {
	c.consistent()
	for _, name := range names[1:] {
		if len(name)%2 == 0 {
			continue
		}
		_, err := ipam.ReleaseHypervisor(c.t.Context(), c.raw, "on/"+name+"/", name)
		require.NoError(c.t, err)
	}
	for _, name := range names {
		c.freeAll(name)
	}
	c.consistent()
	c.fill(names)
	pass(time.Minute)
	for _, name := range names {
		c.giveBack(name)
	}
	assert.Empty(c.t, c.keys(""))
	assert.LessOrEqual(c.t, c.raw.most, 100)
}

// fill leases all of a pool that nothing is leased from, and gives it back.
func (c *crowd) fill(names []string) {
	require.Empty(c.t, c.keys("ipam/lease/"))
	c.pods = 10000000
	for i := range c.size {
		require.NoError(c.t, c.hv[names[i%len(names)]].room())
		c.must(names[i%len(names)], 1)
	}
	c.consistent()
	for i, name := range names {
		_, err := c.hv[name].take(90000000 + i)
		require.ErrorIs(c.t, err, vnic.ErrPoolExhausted)
		require.ErrorIs(c.t, c.hv[name].room(), vnic.ErrPoolExhausted)
	}
	for _, name := range names {
		c.freeAll(name)
	}
}

// consistent checks that the blocks' records, the list of those with free addresses
// and the leases agree.
func (c *crowd) consistent() {
	c.t.Helper()
	used, spare := 0, 0
	require.NoError(c.t, c.raw.View(c.t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("ipam/block/", 0)
		for _, it := range items {
			var b struct {
				Hypervisor  string
				Used, Never uint64
			}
			require.NoError(c.t, json.Unmarshal(it.Value, &b))
			assert.Zero(c.t, b.Used&b.Never, it.Key)
			used += bits.OnesCount64(b.Used)
			if b.Used|b.Never != ^uint64(0) {
				spare++
				s, err := tx.Get("ipam/spare/" + strings.TrimPrefix(it.Key, "ipam/block/"))
				require.NoError(c.t, err)
				assert.True(c.t, s.Exists(), it.Key)
				assert.Equal(c.t, b.Hypervisor, string(s.Value), it.Key)
			}
		}
		return err
	}))
	assert.Len(c.t, c.keys("ipam/lease/"), used)
	assert.Len(c.t, c.keys("ipam/spare/"), spare)
}

// member is one hypervisor of a crowd.
type member struct {
	*crowd
	*rig
	name string
	rnd  *rand.Rand
	next int
	pods []int
}

func (m *member) step() error {
	switch n := m.rnd.IntN(12); {
	case n < 5:
		return m.lease(nil)
	case n < 6:
		a := m.net.Subnets[0].Addr()
		for range m.rnd.IntN(m.size + 4) {
			a = a.Next()
		}
		return m.lease([]netip.Addr{a})
	case n < 10 && len(m.pods) > 0:
		return m.drop(m.rnd.IntN(len(m.pods)))
	case n < 11:
		_, err := m.pool.GiveBack(m.t.Context(), m.store, m.net)
		return err
	}
	pass(time.Duration(m.rnd.IntN(4000)) * time.Millisecond)
	return nil
}

// lease takes addresses, and checks that they are nobody's.
func (m *member) lease(want []netip.Addr) error {
	m.next++
	var got []ipam.Lease
	err := m.update(func(tx store.Tx) (err error) {
		got, err = m.pool.Take(tx, m.net, owner(m.next), want)
		if errors.Is(err, vnic.ErrPoolExhausted) {
			items, serr := tx.Scan("ipam/lease/blue/", 0)
			leased := 0
			for _, it := range items {
				if strings.Contains(it.Key, ":") == m.net.Subnets[0].Addr().Is6() {
					leased++
				}
			}
			assert.Equal(m.t, m.size, leased)
			return errors.Join(err, serr)
		}
		return err
	})
	switch {
	case errors.Is(err, vnic.ErrPoolExhausted):
		return nil
	case want != nil && (errors.Is(err, vnic.ErrAddressTaken) || errors.Is(err, vnic.ErrAddressOutside)):
		return nil
	case err != nil:
		return err
	}
	m.pods = append(m.pods, m.next)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range got {
		assert.NotContains(m.t, m.held, l.Address)
		m.held[l.Address] = m.next
	}
	return nil
}

// drop frees what one of the pods has.
func (m *member) drop(i int) error {
	pod := m.pods[i]
	m.pods = append(m.pods[:i], m.pods[i+1:]...)
	m.mu.Lock()
	for a, p := range m.held {
		if p == pod {
			delete(m.held, a)
		}
	}
	m.mu.Unlock()
	return m.update(func(tx store.Tx) error { return m.pool.Free(tx, owner(pod)) })
}
