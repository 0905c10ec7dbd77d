package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/internal/site"
)

func TestIntegrationReviewStopped(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db")
	run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1")
	require.NoError(t, syscall.Kill(vm.PID(), syscall.SIGSTOP))
	for _, args := range [][]string{{"vm", "list"}, {"doctor"}, {"gc", "--dry-run"}, {"attach", "--pod", "web", "--vm", "vm1"}, {"attach", "--pod", "db", "--vm", "vm1"}, {"detach", "--pod", "web"}, {"list"}} {
		start := time.Now()
		out, err := s.MustBrfuse(ctx, args...)
		t.Logf("%v took %s: %v\n%s", args, time.Since(start), err, out)
	}
	require.NoError(t, syscall.Kill(vm.PID(), syscall.SIGCONT))
	start := time.Now()
	require.Eventually(t, func() bool {
		out, err := s.MustBrfuse(ctx, "list", "-o", "json")
		return err == nil && !containsPod(out)
	}, time.Minute, 100*time.Millisecond)
	t.Logf("gone after %s", time.Since(start))
	t.Log(run(ctx, t, s, "gc", "--dry-run"))
	start = time.Now()
	t.Log(run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1"), time.Since(start))
	start = time.Now()
	t.Log(run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1"), time.Since(start))
	require.NoError(t, vm.Restart(ctx))
	t.Log(run(ctx, t, s, "list"))
	_, err := vm.AddPod(ctx, "web")
	require.NoError(t, err)
	start = time.Now()
	t.Log(run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1"), time.Since(start))
	run(ctx, t, s, "detach", "--pod", "web")
}

func containsPod(s string) bool { return len(s) > 60 }
