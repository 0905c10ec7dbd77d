package orchestrator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/vnic"
)

// TestPoolChaos is TestChaos with a pool that changes, of vNICs that pods soil.
func TestPoolChaos(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inRig(t, func(r *rig) {
				rnd := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // to be repeatable
				r.setPool(2, 4)
				for range 60 {
					if rnd.IntN(5) == 0 {
						r.poolTrouble(rnd)
					} else {
						r.trouble(rnd)
					}
				}
				r.world.SetSlots("vm1", 31)
				r.peace()
				require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 2, High: 4}))
				r.settleDown()
				r.settled()
				for _, a := range r.all() {
					r.detach(a)
				}
				r.settleDown()
				r.settled()
				require.NoError(r.t, r.orch.RemovePool(r.t.Context(), "vm1", "blue"))
				r.nothingLeft()
			})
		})
	}
}

func (r *rig) poolTrouble(rnd *rand.Rand) {
	orch, ctx := r.orch, r.t.Context()
	switch n := rnd.IntN(100); {
	case n < 20:
		low := rnd.IntN(5)
		p := vnic.Pool{VM: "vm1", Network: "blue", Low: low, High: low + 1 + rnd.IntN(3), Queues: 1 + rnd.IntN(8)/7, Idle: 3 * time.Second}
		go orch.SetPool(ctx, p) //nolint:errcheck // anything may happen
	case n < 25:
		go orch.RemovePool(ctx, "vm1", "blue") //nolint:errcheck // anything may happen
	case n < 60:
		if list := r.vnics(); len(list) > 0 {
			r.world.Soil("vm1", list[rnd.IntN(len(list))].ID, "xdp", rnd.IntN(4) == 0)
		}
	case n < 70:
		if list := r.vnics(); len(list) > 0 {
			r.world.Eject("vm1", list[rnd.IntN(len(list))].ID)
		}
	case n < 75:
		if list := r.vnics(); len(list) > 0 {
			r.world.DeleteTap(list[rnd.IntN(len(list))].ID)
		}
	case n < 85:
		r.world.SetSlots("vm1", rnd.IntN(10))
	case n < 90:
		go orch.GC(ctx, rnd.IntN(2) == 0) //nolint:errcheck // anything may happen
	default:
		r.world.StopAgent("vm1")
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond) //nolint:forbidigo // fake seconds
		r.world.StartAgent("vm1")
	}
}

// TestPoolStorm attaches and detaches from many goroutines at once, on a store on
// disk, while the VM, its agent and the pool change; with the real clock. Every
// attach and detach that succeeds has done so, no vNIC is ever two pods', and at
// the end all is as the pool wants it.
func TestPoolStorm(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	defer s.Close()
	r := &rig{t: t, world: orchestratortest.New(), store: s}
	r.world.Boot("vm1", "web", "db")
	r.world.SetSlots("vm1", 24)
	r.start()
	require.NoError(t, r.orch.AddVM(t.Context(), vm("vm1")))
	_, err = r.orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24")})
	require.NoError(t, err)
	set := func(low, high int) {
		assert.NoError(t, r.orch.SetPool(t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: low, High: high}))
	}
	set(4, 8)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			req := request([]string{"web", "db"}[i%2], fmt.Sprintf("eth%d", i))
			for n := range 15 {
				assert.NoError(t, r.cycle(req, n%9 == 0))
			}
		})
	}
	over := make(chan struct{})
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			default:
			}
			set(n%5, n%5+3)
			_, err := r.orch.GC(t.Context(), true)
			assert.NoError(t, err)
			assert.NoError(t, r.orch.Reconcile(t.Context(), "vm1"))
		}
	}()
	wg.Wait()
	close(over)
	<-changed
	set(3, 3)
	require.Eventually(t, func() bool {
		list, err := r.orch.Pools(t.Context())
		return err == nil && list[0].Parked == 3 && list[0].Filling == 0 && len(r.vnics()) == 3
	}, 10*time.Second, 10*time.Millisecond)
	r.settled()
	st := r.status()
	t.Logf("%d hits, %d misses, %d plugs", st.Hits, st.Misses, r.world.Calls("plug"))
	require.NoError(t, r.orch.RemovePool(t.Context(), "vm1", "blue"))
	require.Equal(t, "network blue on bf-blue", r.world.String())
	require.Empty(t, r.leases())
}

// cycle attaches and detaches, and has the pod soil its vNIC meanwhile.
func (r *rig) cycle(req vnic.Request, sticks bool) error {
	a, err := r.orch.Attach(r.t.Context(), req)
	if err != nil {
		return err
	}
	r.world.Soil(req.VM, a.VNIC(), "tc", sticks)
	got, err := r.orch.DetachKey(r.t.Context(), req.Key)
	if err == nil && got.ID != a.ID {
		err = fmt.Errorf("%s was detached, not %s", got.ID, a.ID)
	}
	return err
}

// TestFlappingAgent restarts the agent while attaches and detaches run: each of
// them ends, none is lost, none is doubled.
func TestFlappingAgent(t *testing.T) {
	inPool(t, 2, 4, func(r *rig) {
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				req := request("web", fmt.Sprintf("eth%d", i))
				for n := 0; n < 20; {
					if _, err := r.orch.Attach(r.t.Context(), req); err != nil {
						assert.ErrorIs(r.t, err, vnic.ErrAgentUnavailable)
						time.Sleep(50 * time.Millisecond) //nolint:forbidigo // fake
						continue
					}
					_, err := r.orch.DetachKey(r.t.Context(), req.Key)
					assert.NoError(r.t, err)
					n++
				}
			})
		}
		for _, call := range []string{"move", "retrieve"} {
			r.world.Before(call, func(context.Context) error { time.Sleep(7 * time.Millisecond); return nil }) //nolint:forbidigo // fake
		}
		for range 20 {
			time.Sleep(31 * time.Millisecond) //nolint:forbidigo // fake
			r.world.StopAgent("vm1")
			time.Sleep(3 * time.Millisecond) //nolint:forbidigo // fake
			r.world.StartAgent("vm1")
		}
		wg.Wait()
		synctest.Wait()
		r.settleDown()
		assert.Empty(r.t, r.list())
		r.settled()
	})
}
