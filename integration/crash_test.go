package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/failpoint"
)

// Failpoints on the way of an attach and of a detach, in the daemon and in the agent.
var (
	attachPoints = []string{
		"attach.requested", "attach.leased", "plug.tap", "plug.guard", "plug.bridge", "plug.netdev", "plug.device",
		"attach.plugged", "attach.moved", "attach.ready",
	}
	detachPoints = []string{
		"detach.detaching", "detach.guest", "unplug.device", "unplug.netdev", "unplug.tap", "detach.unplugged", "detach.released",
	}
	agentAttachPoints = []string{"guest.found", "guest.moved", "guest.configured"}
	agentDetachPoints = []string{"guest.released"}
)

// TestIntegrationDaemonCrash kills the daemon at each phase of attach and of
// detach. The next one makes all places agree; the pod can be attached again.
func TestIntegrationDaemonCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true}, "web")
	restart := func(t *testing.T, points ...string) {
		t.Helper()
		s.KillDaemon()
		require.NoError(t, s.StartDaemon(ctx, points...))
		require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	}
	dies := func(t *testing.T, args ...string) {
		t.Helper()
		res, err := s.Brfuse(ctx, args...)
		require.NoError(t, err)
		require.NotEqual(t, 0, res.Code, "the daemon has to die during %v", args)
		select {
		case <-s.DaemonDone():
		case <-time.After(10 * time.Second):
			require.Fail(t, "the daemon did not die at its failpoint")
		}
	}
	for _, point := range attachPoints {
		t.Run(point, func(t *testing.T) {
			restart(t, point+"=kill")
			dies(t, "attach", "--vm", "vm1", "--pod", "web")
			restart(t)
			tr := settled(ctx, t, s, vm)
			if point == "attach.ready" {
				assert.Len(t, tr.Store, 1, "what was recorded as ready stays")
			} else {
				assert.Empty(t, tr.Store)
			}
			assertWorks(ctx, t, s, vm)
		})
	}
	for _, point := range detachPoints {
		t.Run(point, func(t *testing.T) {
			restart(t, point+"=kill")
			attach(ctx, t, s, "--pod", "web")
			dies(t, "detach", "--pod", "web")
			restart(t)
			assert.Empty(t, settled(ctx, t, s, vm).Store)
			assertWorks(ctx, t, s, vm)
		})
	}
}

// assertWorks attaches a pod, or finds it attached, pings it, detaches it, and
// checks that nothing is left.
func assertWorks(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM) {
	t.Helper()
	a := attach(ctx, t, s, "--pod", "web")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(true))
	run(ctx, t, s, "detach", "--pod", "web")
	assertNothingLeft(ctx, t, s, vm)
}

// TestIntegrationAgentCrash kills the agent at each of its steps.
func TestIntegrationAgentCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true, AgentByHand: true}, "web")
	for _, point := range append(agentAttachPoints, agentDetachPoints...) {
		t.Run(point, func(t *testing.T) {
			agent := startAgent(ctx, t, s, vm, failpoint.Env+"="+point+"=kill")
			settled(ctx, t, s, vm)
			if point == "guest.released" {
				attach(ctx, t, s, "--pod", "web")
				// The unplug decides; that the agent can't tell is no failure.
				run(ctx, t, s, "detach", "--pod", "web")
			} else {
				fails(ctx, t, s, "agent_unavailable", "vm1", "attach", "--vm", "vm1", "--pod", "web")
			}
			_, err := agent.Wait(ctx)
			require.NoError(t, err)
			next := startAgent(ctx, t, s, vm)
			assert.Empty(t, settled(ctx, t, s, vm).Store)
			assertWorks(ctx, t, s, vm)
			require.NoError(t, next.Kill(ctx))
		})
	}
	t.Run("while ready", func(t *testing.T) {
		agent := startAgent(ctx, t, s, vm)
		a := attach(ctx, t, s, "--pod", "web")
		require.NoError(t, agent.Kill(ctx))
		soon, cancel := context.WithTimeout(ctx, 7*time.Second) // QEMU tells; the heartbeat alone takes ten
		defer cancel()
		require.NoError(t, site.Until(soon, "the end of the dead agent's session", func(ctx context.Context) (bool, error) {
			out, err := s.MustBrfuse(ctx, "vm", "list")
			return strings.Contains(out, "absent"), err
		}))
		startAgent(ctx, t, s, vm)
		assert.Equal(t, []string{a.ID}, settled(ctx, t, s, vm).Store)
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
		// The new agent was told of the vNIC, so it notices when the pod dies.
		require.NoError(t, vm.RemovePod(ctx, "web"))
		awaitGone(ctx, t, s, a.ID)
		assertNothingLeft(ctx, t, s, vm)
	})
}

// TestIntegrationPodDies has a pod's namespace die: NIC and lease come back, with
// the agent there and while it is away.
func TestIntegrationPodDies(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "web", "db")
	a := attach(ctx, t, s, "--pod", "web")
	require.NoError(t, vm.RemovePod(ctx, "web"))
	awaitGone(ctx, t, s, a.ID)
	assertNothingLeft(ctx, t, s, vm)

	b := attach(ctx, t, s, "--pod", "db", "--ifname", "net0")
	agent, err := vm.Find(ctx, "brfuse-agent")
	require.NoError(t, err)
	require.NoError(t, agent.Kill(ctx))
	require.NoError(t, vm.RemovePod(ctx, "db"))
	startAgent(ctx, t, s, vm)
	awaitGone(ctx, t, s, b.ID)
	assertNothingLeft(ctx, t, s, vm)
}

// awaitGone waits until an attachment is released.
func awaitGone(ctx context.Context, t *testing.T, s *site.Site, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, site.Until(ctx, "the release of "+id, func(ctx context.Context) (bool, error) {
		atts, err := s.List(ctx)
		for _, a := range atts {
			if a.ID == id {
				return false, err
			}
		}
		return true, err
	}))
}

// TestIntegrationQEMUCrash kills QEMU while the daemon waits at each phase of
// attach and of detach, boots it again, and finds all gone and usable.
func TestIntegrationQEMUCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true}, "web")
	dir := filepath.Join(s.Dir, "fp")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, point := range []string{
		"attach.leased", "plug.bridge", "plug.netdev", "attach.plugged", "attach.moved", "attach.ready",
		"detach.detaching", "detach.guest", "unplug.device", "detach.unplugged",
	} {
		t.Run(point, func(t *testing.T) {
			s.KillDaemon()
			require.NoError(t, s.StartDaemon(ctx, point+"=pause:"+dir))
			require.NoError(t, s.AwaitAgent(ctx, "vm1"))
			cl, err := s.Client()
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := cl.Attach(ctx, &brfusev1.AttachRequest{Vm: "vm1", Pod: "web"})
				if err == nil {
					_, err = cl.Detach(ctx, &brfusev1.DetachRequest{Vm: "vm1", Pod: "web"})
				}
				done <- err
			}()
			awaitPause(ctx, t, filepath.Join(dir, point))
			vm.Kill()
			require.NoError(t, os.Remove(filepath.Join(dir, point)))
			select {
			case err := <-done:
				t.Logf("the calls ended: %v", err)
			case <-ctx.Done():
				require.Fail(t, "the calls did not end")
			}
			assert.Empty(t, settled(ctx, t, s, vm).Store, "QEMU is gone, and its pods with it")
			require.NoError(t, vm.Restart(ctx))
			_, err = vm.AddPod(ctx, "web")
			require.NoError(t, err)
			s.KillDaemon()
			require.NoError(t, s.StartDaemon(ctx))
			require.NoError(t, s.AwaitAgent(ctx, "vm1"))
			assertWorks(ctx, t, s, vm)
		})
	}
}

// awaitPause waits until a program stops at a failpoint.
func awaitPause(ctx context.Context, t *testing.T, file string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, site.Until(ctx, "a stop at "+file, func(context.Context) (bool, error) {
		_, err := os.Stat(file)
		return err == nil, err
	}))
}
