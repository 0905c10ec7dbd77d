package ipam_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
	"github.com/brfuse/brfuse/vnic"
)

const (
	// For how long there are faults, and how much longer all may take.
	faultsFor, faultsForLong = 25 * time.Second, 3 * time.Minute
	faultsOver               = 3 * time.Minute
	// requestLimit is short, so that many outcomes are unclear.
	requestLimit = 1500 * time.Millisecond
	hosts        = 5
	workers      = 2 // of each host
	poolSize     = 13
	quarantine   = 20 * time.Millisecond
)

// seedEnv names the variable that has a test make the same choices again.
const seedEnv = "BRFUSE_TEST_SEED"

// TestCrowdUnderFaults has hypervisors lease, reserve and give back at random on a real
// etcd, whose members die and freeze, while connections are cut, replies are lost, calls
// are broken off, and daemons die and are released: no address is given twice, what was
// told to succeed is in the store and what was told to fail is not, and in the end all
// addresses can be leased and nothing is left.
//
// With BRFUSE_TEST_LONG=1 it takes some minutes. Choices depend on BRFUSE_TEST_SEED, by
// default another one each time; what meets what depends on the machine as well.
func TestCrowdUnderFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	last := faultsFor
	if os.Getenv("BRFUSE_TEST_LONG") != "" {
		last = faultsForLong
	}
	ctx, cancel := context.WithTimeout(t.Context(), last+faultsOver)
	defer cancel()
	s := newStage(ctx, t, chosenSeed(t))
	s.run(ctx, last)
	s.end()
}

func chosenSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // no secret
	if v := os.Getenv(seedEnv); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err, seedEnv)
	}
	t.Logf("%s=%d", seedEnv, seed)
	return seed
}

// stage has hypervisors on a real etcd.
type stage struct {
	t       *testing.T
	members *etcdtest.Cluster
	net     vnic.Network
	book    *book
	other   *etcdstore.Store // of one who looks on
	hosts   []*host
	seed    uint64
	streams uint64 // of random numbers
}

func newStage(ctx context.Context, t *testing.T, seed uint64) *stage {
	t.Helper()
	s := &stage{t: t, seed: seed, book: newBook(t)}
	s.members = etcdtest.Start(t, etcdtest.Options{Members: 3}) //nolint:contextcheck // it ends with the test
	s.net = newRig(t, 0, "10.1.0.0/28", "fd00::/124").net
	s.other = s.patient() //nolint:contextcheck // it ends with the test
	for i := range hosts {
		name := fmt.Sprintf("hv%d", i)
		h := &host{stage: s, name: name, pool: ipam.New(ipam.Options{Quarantine: quarantine, Hypervisor: name})}
		h.open(ctx)
		require.False(t, t.Failed())
		t.Cleanup(func() { //nolint:contextcheck // has to be done when ctx has ended too
			_ = h.etcd.Close() // or it takes etcd for gone
			h.wire.close()
		})
		s.hosts = append(s.hosts, h)
	}
	return s
}

// openStore opens the store as brfused does.
func openStore(ctx context.Context, endpoints []string, limit time.Duration) (*etcdstore.Store, error) {
	cfg, err := etcdstore.ParseURL(fmt.Sprintf("etcd://%s/crowd/?request-timeout=%s", strings.Join(endpoints, ","), limit))
	if err != nil {
		return nil, err
	}
	return etcdstore.Open(ctx, cfg)
}

// patient opens the store for who is to succeed.
func (s *stage) patient() *etcdstore.Store {
	st, err := openStore(s.t.Context(), s.members.Endpoints(), faultsOver)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { assert.NoError(s.t, st.Close()) })
	return st
}

// homeOf returns where a hypervisor's own keys lie.
func homeOf(name string) string { return "on/" + name + "/" }

// random returns a new stream of random numbers.
func (s *stage) random() *rand.Rand {
	s.streams++
	return rand.New(rand.NewPCG(s.seed, s.streams)) //nolint:gosec // to be repeatable
}

// until does something again until it succeeds.
func (s *stage) until(ctx context.Context, what string, try func() error) {
	for {
		err := try()
		if err == nil {
			return
		}
		if !rest(ctx, 50*time.Millisecond) {
			assert.NoError(s.t, err, what)
			return
		}
	}
}

// rest waits, and reports whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run has the hypervisors be busy while there are faults.
func (s *stage) run(ctx context.Context, last time.Duration) {
	faulty, cancel := context.WithTimeout(ctx, last)
	defer cancel()
	var going, busy sync.WaitGroup
	over := make(chan struct{})
	for i := range hosts * workers {
		w := &worker{host: s.hosts[i%hosts], rnd: s.random(), next: 100000 * i}
		busy.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					w.step(ctx)
				}
			}
		})
	}
	for _, f := range []*faults{{stage: s, rnd: s.random(), kinds: s.etcdFaults()}, {stage: s, rnd: s.random(), kinds: s.hostFaults()}} {
		going.Go(func() { f.run(ctx, faulty) })
	}
	going.Wait()
	close(over)
	busy.Wait()
	require.False(s.t, s.t.Failed())
}

// end compares what there is with the book, and uses all of the pool.
func (s *stage) end() {
	_, err := s.members.Leader(s.t.Context())
	require.NoError(s.t, err)
	c := &crowd{cluster: &cluster{t: s.t, raw: &recorder{Store: s.other}, hv: map[string]*rig{}}, size: poolSize, held: map[netip.Addr]int{}}
	var names []string
	var own []ipam.Lease
	for _, h := range s.hosts {
		names = append(names, h.name)
		c.hv[h.name] = &rig{t: s.t, store: scoped.New(s.patient(), homeOf(h.name), ipam.OwnPrefixes()), pool: h.pool, net: s.net}
		own = append(own, c.hv[h.name].leases()...)
	}
	s.book.check(s.leases())
	for i := range own {
		own[i].Pool = netip.Prefix{} // that of a reservation is not told
	}
	assert.ElementsMatch(s.t, s.leases(), own, "each lease is known to its hypervisor, and to no other")
	c.consistent()
	for _, name := range names {
		for _, l := range c.hv[name].leases() {
			require.NoError(s.t, c.hv[name].update(func(tx store.Tx) error {
				if l.VM != "" {
					return c.hv[name].pool.Unreserve(tx, l.VM, l.Network, l.Address)
				}
				return c.hv[name].pool.FreeLease(tx, l)
			}))
		}
	}
	c.consistent()
	c.fill(names)
	s.until(s.t.Context(), "nothing to be left", func() error {
		for _, name := range names {
			c.giveBack(name)
		}
		if left := c.keys(""); len(left) > 0 {
			return fmt.Errorf("%q are left", left)
		}
		return nil
	})
}

// leases returns all that are in the store, without their pools.
func (s *stage) leases() (list []ipam.Lease) {
	require.NoError(s.t, s.other.View(s.t.Context(), func(tx store.ReadTx) (err error) {
		list, err = ipam.New(ipam.Options{}).Leases(tx)
		return err
	}))
	for i := range list {
		list[i].Pool = netip.Prefix{}
	}
	return list
}
