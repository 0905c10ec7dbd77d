package orchestrator_test

import (
	"context"
	"errors"
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

// TestStorm attaches and detaches 50 vNICs at once, on a store on disk.
func TestStorm(t *testing.T) {
	const n = 50
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	defer s.Close()
	r := &rig{t: t, world: orchestratortest.New(), store: s}
	r.world.Boot("vm1", "web", "db")
	r.world.SetSlots("vm1", n)
	r.start()
	require.NoError(t, r.orch.AddVM(t.Context(), vm("vm1")))
	for _, net := range []vnic.Network{
		{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")}, {Name: "red", Subnets: prefixes("10.2.0.0/29")},
	} {
		_, err := r.orch.CreateNetwork(t.Context(), net)
		require.NoError(t, err)
	}
	// All of them are inside of the hypervisor's call at the same time.
	var inside sync.WaitGroup
	inside.Add(n)
	r.world.Before("plug", func(context.Context) error { inside.Done(); inside.Wait(); return nil })
	start := time.Now()
	each(n, func(i int) {
		_, err := r.orch.Attach(t.Context(), request("web", fmt.Sprintf("eth%d", i)))
		assert.NoError(t, err)
	})
	t.Logf("%d attaches in %s", n, time.Since(start))
	require.Len(t, r.all(), n)
	r.consistent()
	each(n, func(i int) {
		_, err := r.orch.DetachKey(t.Context(), request("web", fmt.Sprintf("eth%d", i)).Key)
		assert.NoError(t, err)
	})
	r.nothingLeft()
}

func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// TestChaos attaches and detaches at random while calls fail, pods die, agents
// come and go, and daemons crash. Once the trouble is over, all is ready or gone,
// and after a detach of all nothing is left.
func TestChaos(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inRig(t, func(r *rig) {
				rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // to be repeatable
				for range 60 {
					r.trouble(rnd)
				}
				r.peace()
				r.consistent()
				for _, a := range r.all() {
					_, err := r.orch.Detach(r.t.Context(), a.ID)
					require.NoError(r.t, err)
				}
				r.nothingLeft()
			})
		})
	}
}

var calls = []string{"prepare", "plug", "move", "configure", "release", "nics", "unplug", "ports", "addvm", "setnetwork", "park", "unpark", "retrieve"}

func (r *rig) trouble(rnd *rand.Rand) {
	req := request([]string{"web", "db"}[rnd.IntN(2)], fmt.Sprintf("eth%d", rnd.IntN(3)))
	req.Handover = rnd.IntN(4) == 0
	if rnd.IntN(3) == 0 {
		req.Ports = []vnic.PortMapping{mapping(uint16(8000+rnd.IntN(4)), 80)}
	}
	orch, ctx := r.orch, r.t.Context()
	switch n := rnd.IntN(100); {
	case n < 30:
		go orch.Attach(ctx, req) //nolint:errcheck // anything may happen
	case n < 36:
		if list := r.all(); len(list) > 0 {
			go orch.Publish(ctx, list[rnd.IntN(len(list))].ID, req.Ports) //nolint:errcheck // anything may happen
		}
	case n < 48:
		go orch.DetachKey(ctx, req.Key) //nolint:errcheck // anything may happen
	case n < 55:
		call, err := calls[rnd.IntN(len(calls))], []error{errBoom, vnic.ErrAgentUnavailable, vnic.ErrNICMissing, context.DeadlineExceeded}[rnd.IntN(4)]
		r.world.Fail(call, err)
	case n < 60:
		r.world.After(calls[rnd.IntN(len(calls))], func(context.Context) error { return errBoom })
	case n < 65:
		r.world.Hang(calls[rnd.IntN(len(calls))])
	case n < 75:
		call := calls[rnd.IntN(len(calls))]
		r.world.Fail(call, nil)
		r.world.After(call, nil)
	case n < 80:
		r.world.KillPod("vm1", req.Pod)
		r.world.StartPod("vm1", req.Pod)
	case n < 84:
		r.world.StopAgent("vm1")
		r.world.StartAgent("vm1")
	case n < 86:
		r.world.Kill("vm1")
		r.world.Boot("vm1", "web", "db")
	case n < 88:
		r.world.Litter("vm1", vnic.NewID())
	case n < 90:
		if list := r.all(); len(list) > 0 {
			r.world.Eject("vm1", list[rnd.IntN(len(list))].ID)
		}
	case n < 93:
		r.conn.CrashAt("after update", rnd.IntN(5))
		r.settleDown()
		r.world.Forget()
		r.restart()
	default:
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond) //nolint:forbidigo // fake seconds
	}
}

// peace ends all trouble and lets what goes on in the background come to an end.
func (r *rig) peace() {
	for _, call := range calls {
		r.world.Fail(call, nil)
		r.world.After(call, nil)
	}
	r.settleDown()
	if err := r.orch.Reconcile(r.t.Context(), "vm1"); errors.Is(err, vnic.ErrUnknownVM) {
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm1")))
	}
	r.settleDown()
	synctest.Wait()
}
