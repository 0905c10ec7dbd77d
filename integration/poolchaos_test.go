package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/internal/failpoint"
)

// setPool makes the pool of vm1 and network blue.
func setPool(ctx context.Context, t *testing.T, s *site.Site, low, high int) {
	t.Helper()
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", fmt.Sprint(low), "--high", fmt.Sprint(high))
}

// dropPool removes it.
func dropPool(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	run(ctx, t, s, "pool", "rm", "--vm", "vm1", "--network", "blue")
}

// awaitFull waits until the pool has what it is to have at least, and is at rest.
func awaitFull(ctx context.Context, t *testing.T, s *site.Site, low int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, site.Until(ctx, "a full pool", func(ctx context.Context) (bool, error) {
		var got struct{ Pools []poolState }
		if err := s.BrfuseJSON(ctx, &got, "pool", "list"); err != nil {
			return false, err
		}
		p := got.Pools[0]
		if p.Parked < low || p.Filling > 0 {
			return false, fmt.Errorf("pool: %+v", p)
		}
		return true, nil
	}))
}

// awaitAbsent waits until the daemon knows that the agent is gone.
func awaitAbsent(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, site.Until(ctx, "the end of the agent's session", func(ctx context.Context) (bool, error) {
		out, err := s.MustBrfuse(ctx, "vm", "list")
		return strings.Contains(out, "absent"), err
	}))
}

// TestIntegrationPoolRefill attaches more pods at once than the pool has vNICs,
// which is filled meanwhile, and detaches more than it has room for.
func TestIntegrationPoolRefill(t *testing.T) {
	pods := podNames(12)
	ctx, s, vm := newPods(t, site.Options{Race: true}, pods...)
	setPool(ctx, t, s, 2, 4)
	awaitFull(ctx, t, s, 2)
	c := newCalls(s, "vm1")
	for round := range 3 {
		_, err := each(pods, len(pods), func(pod string) error {
			_, err := c.attach(ctx, pod)
			return err
		})
		require.NoError(t, err)
		assertEachHasOne(ctx, t, c, vm, pods)
		detachEach(ctx, t, c, vm, pods)
		awaitParked(ctx, t, s, 4)
		t.Logf("round %d: %+v", round, pool(ctx, t, s))
	}
	state := pool(ctx, t, s)
	hits, err := strconv.Atoi(state.Hits)
	require.NoError(t, err)
	misses, err := strconv.Atoi(state.Misses)
	require.NoError(t, err)
	assert.Equal(t, 3*len(pods), hits+misses)
	assert.GreaterOrEqual(t, hits, 2+4+4)
	dropPool(ctx, t, s)
	assertNothingLeft(ctx, t, s, vm)
}

// Failpoints on the way of a warm attach, of parking, of filling and of draining.
var (
	warmPoints  = []string{"attach.taken", "unpark.guard", "unpark.bridge", "attach.unparked", "attach.moved", "attach.ready"}
	parkPoints  = []string{"detach.detaching", "park.bridge", "park.guard", "park.host", "park.guest", "park.parked"}
	fillPoints  = []string{"fill.recorded", "plug.tap", "plug.device", "fill.plugged", "fill.retrieved", "fill.parked"}
	drainPoints = []string{"drain.recorded", "unplug.device", "unplug.tap", "drain.unplugged"}
)

// TestIntegrationPoolCrash kills the daemon at each step of what is done with a
// pool. The next one makes all places agree, fills the pool, and attaches from it.
func TestIntegrationPoolCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true}, "web")
	restart := func(t *testing.T, parked int, points ...string) {
		t.Helper()
		s.KillDaemon()
		require.NoError(t, s.StartDaemon(ctx, points...))
		require.NoError(t, s.AwaitAgent(ctx, "vm1"))
		if parked > 0 { // also those that are looked after first
			awaitFull(ctx, t, s, parked)
		}
	}
	dies := func(t *testing.T, args ...string) {
		t.Helper()
		res, err := s.Brfuse(ctx, args...)
		require.NoError(t, err)
		for tries := 0; args[0] == "attach" && res.Code == 0 && tries < 10; tries++ {
			// It was made without the pool, whose vNICs are looked after when a daemon starts.
			run(ctx, t, s, "detach", "--pod", "web")
			res, err = s.Brfuse(ctx, args...)
			require.NoError(t, err)
		}
		select {
		case <-s.DaemonDone():
		case <-time.After(20 * time.Second):
			require.Fail(t, "the daemon did not die at its failpoint", "%s%s", res.Stdout, res.Stderr)
		}
	}
	// recovers expects so many attachments after a restart.
	recovers := func(t *testing.T, attached int) {
		t.Helper()
		restart(t, 0)
		setPool(ctx, t, s, 2, 4)
		awaitFull(ctx, t, s, 2)
		assert.Len(t, settled(ctx, t, s, vm).Store, attached)
		a := attach(ctx, t, s, "--pod", "web")
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
		run(ctx, t, s, "detach", "--pod", "web")
		assert.Empty(t, settled(ctx, t, s, vm).Store)
	}
	setPool(ctx, t, s, 2, 4)
	awaitFull(ctx, t, s, 2)
	for _, point := range warmPoints {
		t.Run("attach/"+point, func(t *testing.T) {
			restart(t, 2, point+"=kill")
			dies(t, "attach", "--vm", "vm1", "--pod", "web")
			recovers(t, count(point == "attach.ready"))
		})
	}
	for _, point := range parkPoints {
		t.Run("detach/"+point, func(t *testing.T) {
			attach(ctx, t, s, "--pod", "web")
			restart(t, 2, point+"=kill")
			dies(t, "detach", "--pod", "web")
			recovers(t, 0)
		})
	}
	for _, point := range fillPoints {
		t.Run("fill/"+point, func(t *testing.T) {
			dropPool(ctx, t, s)
			restart(t, 0, point+"=kill")
			dies(t, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "2", "--high", "4")
			recovers(t, 0)
		})
	}
	for _, point := range drainPoints {
		t.Run("drain/"+point, func(t *testing.T) {
			restart(t, 2, point+"=kill")
			dies(t, "pool", "rm", "--vm", "vm1", "--network", "blue")
			recovers(t, 0)
		})
	}
	dropPool(ctx, t, s)
	assertNothingLeft(ctx, t, s, vm)
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// TestIntegrationPoolAgentCrash kills the agent when it has made a vNIC like new.
func TestIntegrationPoolAgentCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true, AgentByHand: true}, "web")
	agent := startAgent(ctx, t, s, vm)
	setPool(ctx, t, s, 2, 4)
	awaitFull(ctx, t, s, 2)
	for _, point := range []string{"guest.moved", "guest.configured", "guest.retrieved"} {
		t.Run(point, func(t *testing.T) {
			if point == "guest.retrieved" {
				attach(ctx, t, s, "--pod", "web")
			}
			require.NoError(t, agent.Kill(ctx))
			awaitAbsent(ctx, t, s)
			p := startAgent(ctx, t, s, vm, failpoint.Env+"="+point+"=kill")
			if point == "guest.retrieved" { // also of those that the agent is told of at first
				_, _ = s.Brfuse(ctx, "detach", "--pod", "web")
			} else {
				awaitFull(ctx, t, s, 2)
				fails(ctx, t, s, "agent_unavailable", "vm1", "attach", "--vm", "vm1", "--pod", "web")
			}
			_, err := p.Wait(ctx)
			require.NoError(t, err)
			awaitAbsent(ctx, t, s)
			agent = startAgent(ctx, t, s, vm)
			awaitFull(ctx, t, s, 2)
			assert.Empty(t, settled(ctx, t, s, vm).Store)
			a := attach(ctx, t, s, "--pod", "web")
			onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
			run(ctx, t, s, "detach", "--pod", "web")
		})
	}
	dropPool(ctx, t, s)
	assertNothingLeft(ctx, t, s, vm)
}
