package cluster

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/site"
)

// outage is for how long etcd has no majority.
func outage() time.Duration {
	if os.Getenv("BRFUSE_TEST_LONG") != "" {
		return time.Minute
	}
	return 10 * time.Second
}

// noStore checks that an attach without etcd fails by itself, and says why.
func noStore(ctx context.Context, t *testing.T, h *hyper, pod string) {
	t.Helper()
	began := time.Now()
	res, err := h.Brfuse(ctx, "attach", "--vm", h.vm.Name(), "--pod", pod)
	require.NoError(t, err)
	t.Logf("attach without a store, after %v: %s", time.Since(began), res.Stderr)
	assert.NotZero(t, res.Code)
	assert.Contains(t, res.Stderr, "see that a majority of its members runs and can be reached from here")
	assert.NotContains(t, res.Stderr, "--timeout", "the daemon says so, and doesn't leave the caller waiting")
}

// comesAndGoes attaches another pod, which reaches one elsewhere, and detaches it.
func comesAndGoes(ctx context.Context, t *testing.T, h *hyper, pod, to string) {
	t.Helper()
	t.Run("attach "+pod, func(t *testing.T) {
		attach(ctx, t, h, pod)
		reaches(ctx, t, h, pod, to)
	})
}

// TestIntegrationClusterRestarts kills and stops daemons. Traffic goes on without them.
func TestIntegrationClusterRestarts(t *testing.T) {
	ctx, r := open(t)
	web, db, flows := pair(ctx, t, r)
	t.Run("killed", func(t *testing.T) {
		r.a.KillDaemon()
		allAdvance(ctx, t, flows, "without a daemon")
		require.NoError(t, r.a.start(ctx))
		allAdvance(ctx, t, flows, "with a daemon again")
		comesAndGoes(ctx, t, r.a, "after-kill", db.Addr(false))
	})
	t.Run("a pod comes while a daemon is dead", func(t *testing.T) {
		r.a.KillDaemon()
		late := attach(ctx, t, r.b, "meanwhile")
		require.NoError(t, r.a.start(ctx))
		reaches(ctx, t, r.a, "web", late.Addr(false))
	})
	t.Run("one after the other", func(t *testing.T) {
		for _, h := range r.all() {
			require.NoError(t, h.stop(ctx))
			allAdvance(ctx, t, flows, "without the daemon of "+h.name)
			require.NoError(t, h.start(ctx))
		}
		allAdvance(ctx, t, flows, "after all restarts")
		comesAndGoes(ctx, t, r.b, "after-roll", web.Addr(true))
	})
}

// TestIntegrationClusterCable cuts a hypervisor off, until the others see it dead and
// the store has forgotten what happened meanwhile.
func TestIntegrationClusterCable(t *testing.T) {
	ctx, r := open(t)
	_, db, flows := pair(ctx, t, r)
	cable := func(ctx context.Context, state string) error {
		return runAll(ctx, r.sw, "ip link set "+r.b.port+" "+state)
	}
	require.NoError(t, cable(ctx, "down"))
	undo(ctx, t, func(ctx context.Context) error { return cable(ctx, "up") })
	r.a.awaitState(ctx, t, r.b, "dead")
	dead := r.a.listAll(ctx, t)
	require.Len(t, dead, 2)
	for _, a := range dead {
		assert.Equal(t, a.Pod == "db", a.Dead, a.Pod)
	}
	late := attach(ctx, t, r.a, "late")
	_, err := r.etcd.Compact(ctx)
	require.NoError(t, err)

	_, err = r.b.vm.AddPod(ctx, "cut-off")
	require.NoError(t, err)
	noStore(ctx, t, r.b, "cut-off")

	require.NoError(t, cable(ctx, "up"))
	allAdvance(ctx, t, flows, "with the cable back")
	r.a.awaitState(ctx, t, r.b, "alive")
	reaches(ctx, t, r.b, "db", late.Addr(false))
	_, err = r.b.MustBrfuse(ctx, "attach", "--vm", r.b.vm.Name(), "--pod", "cut-off")
	require.NoError(t, err)
	reaches(ctx, t, r.b, "cut-off", db.Addr(false))
	run(ctx, t, r.b, "detach", "--vm", r.b.vm.Name(), "--pod", "cut-off")
	require.NoError(t, r.b.vm.RemovePod(ctx, "cut-off"))
}

// TestIntegrationClusterEtcd ends etcd's leader, its majority, and what it remembers.
func TestIntegrationClusterEtcd(t *testing.T) {
	ctx, r := open(t)
	web, db, flows := pair(ctx, t, r)
	t.Run("leader killed", func(t *testing.T) {
		leader, err := r.etcd.Leader(ctx)
		require.NoError(t, err)
		leader.Kill()
		undo(ctx, t, leader.Start)
		allAdvance(ctx, t, flows, "without the leader")
		comesAndGoes(ctx, t, r.a, "leaderless", db.Addr(true))
	})
	t.Run("no majority", func(t *testing.T) {
		for _, m := range r.etcd.Members[:2] {
			m.Kill()
		}
		over := time.NewTimer(outage())
		defer over.Stop()
		_, err := r.a.vm.AddPod(ctx, "minor")
		require.NoError(t, err)
		noStore(ctx, t, r.a, "minor")
		for waiting := true; waiting; {
			select {
			case <-over.C:
				waiting = false
			default:
				allAdvance(ctx, t, flows, "without a majority of etcd")
			}
		}
		errs := make(chan error, 2)
		for _, m := range r.etcd.Members[:2] {
			go func() { errs <- m.Start(ctx) }()
		}
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)
		_, err = r.a.MustBrfuse(ctx, "attach", "--vm", r.a.vm.Name(), "--pod", "minor")
		require.NoError(t, err)
		reaches(ctx, t, r.a, "minor", db.Addr(false))
		run(ctx, t, r.a, "detach", "--vm", r.a.vm.Name(), "--pod", "minor")
		require.NoError(t, r.a.vm.RemovePod(ctx, "minor"))
	})
	t.Run("compacted while a daemon stands still", func(t *testing.T) {
		require.NoError(t, unix.Kill(r.b.DaemonPID(), unix.SIGSTOP))
		late := attach(ctx, t, r.a, "late")
		_, err := r.etcd.Compact(ctx)
		require.NoError(t, unix.Kill(r.b.DaemonPID(), unix.SIGCONT))
		require.NoError(t, err)
		reaches(ctx, t, r.b, "db", late.Addr(false))
	})
	for _, h := range r.all() {
		r.a.awaitState(ctx, t, h, "alive")
	}
	allAdvance(ctx, t, flows, "at the end")
	comesAndGoes(ctx, t, r.b, "last", web.Addr(false))
}

// stop ends a hypervisor's daemon as a service manager does.
func (h *hyper) stop(ctx context.Context) error {
	err := unix.Kill(h.DaemonPID(), unix.SIGTERM)
	if err == nil {
		select {
		case <-h.DaemonDone():
		case <-ctx.Done():
			err = fmt.Errorf("await the end of the daemon of %s: %w", h.name, ctx.Err())
		}
	}
	h.KillDaemon() // closes what it leaves
	return err
}

// start starts a daemon, and waits until it has its guest again.
func (h *hyper) start(ctx context.Context) error {
	err := h.StartDaemon(ctx)
	if err == nil && h.vm != nil {
		err = h.AwaitAgent(ctx, h.vm.Name())
	}
	return err
}

// awaitState waits until a hypervisor sees another one in a state.
func (h *hyper) awaitState(ctx context.Context, t *testing.T, other *hyper, state string) {
	t.Helper()
	err := site.Until(ctx, "hypervisor "+other.name+" to be "+state, func(ctx context.Context) (bool, error) {
		var got struct {
			Hypervisors []struct{ Name, State string }
		}
		if err := h.BrfuseJSON(ctx, &got, "hosts"); err != nil {
			return false, err
		}
		for _, x := range got.Hypervisors {
			if x.Name == other.name {
				return x.State == state, nil
			}
		}
		return false, nil
	})
	require.NoError(t, err)
}

// located is an attachment of any hypervisor.
type located struct {
	site.Attachment
	Hypervisor string `json:"hypervisor"`
	Dead       bool   `json:"hypervisorDead"`
}

func (h *hyper) listAll(ctx context.Context, t *testing.T) []located {
	t.Helper()
	var got struct {
		Attachments []located `json:"attachments"`
	}
	require.NoError(t, h.BrfuseJSON(ctx, &got, "list", "--all"))
	return got.Attachments
}
