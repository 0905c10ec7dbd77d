package integration

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// mover moves a guest with one attached pod from QEMU to QEMU.
type mover struct {
	t    *testing.T // whose end is that of the guests
	s    *site.Site
	vm   *vmlab.VM // where the guest is
	twin *vmlab.Twin
	a    attachment
	dir  string // of failpoints that pause
}

func newMover(t *testing.T) (context.Context, *mover) {
	t.Helper()
	ctx, s, vm := newPods(t, site.Options{Failpoints: true}, "web")
	needsQMP(ctx, t, s, vm)
	m := &mover{t: t, s: s, vm: vm, a: attach(ctx, t, s, "--pod", "web"), dir: filepath.Join(s.Dir, "fp")}
	require.NoError(t, os.Mkdir(m.dir, 0o700))
	return ctx, m
}

// restart starts the daemon anew, with failpoints.
func (m *mover) restart(ctx context.Context, t *testing.T, points ...string) {
	t.Helper()
	m.s.KillDaemon()
	require.NoError(t, m.s.StartDaemon(ctx, points...))
}

// start has the daemon begin to move the guest to a new twin.
func (m *mover) start(ctx context.Context, t *testing.T, limit time.Duration) (result <-chan error) {
	t.Helper()
	m.twin = newTwin(ctx, m.t, m.vm, "-"+filepath.Base(t.Name()))
	cl, err := m.s.Client()
	require.NoError(t, err)
	ref, ch := m.twin.Ref(), make(chan error, 1)
	go func() {
		_, err := cl.MigrateVM(ctx, &brfusev1.MigrateVMRequest{
			Name: "vm1", Qmp: ref.QMP, Channel: ref.Channel, Timeout: durationpb.New(limit),
		})
		ch <- err
	}()
	return ch
}

// slowly begins a migration that takes minutes, and returns once it is under way.
func (m *mover) slowly(ctx context.Context, t *testing.T, limit time.Duration) (result <-chan error) {
	t.Helper()
	m.restart(ctx, t, "migrate.plugged=pause:"+m.dir)
	m.awaitAgent(ctx, t)
	result = m.start(ctx, t, limit)
	m.awaitPause(ctx, t)
	_, err := m.vm.Monitor().Do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": 200_000})
	require.NoError(t, err)
	m.goOn(t)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, site.Until(ctx, "a migration under way", func(ctx context.Context) (bool, error) {
		raw, err := m.vm.Monitor().Do(ctx, "query-migrate", nil)
		if err != nil {
			return false, err
		}
		var st struct {
			Status string
			RAM    struct{ Transferred int }
		}
		err = json.Unmarshal(raw, &st)
		return st.Status == "active" && st.RAM.Transferred > 100_000, err
	}))
	return result
}

func (m *mover) awaitAgent(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, m.s.AwaitAgent(ctx, "vm1"))
}

func (m *mover) awaitPause(ctx context.Context, t *testing.T) {
	t.Helper()
	awaitPause(ctx, t, filepath.Join(m.dir, "migrate.plugged"))
}

func (m *mover) goOn(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(m.dir, "migrate.plugged")))
}

// await returns the end of a migration.
func (m *mover) await(ctx context.Context, t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		t.Logf("the migration ended: %v", err)
		return err
	case <-ctx.Done():
		require.Fail(t, "the migration did not end")
		return nil
	}
}

// here checks that the guest is where it was, and nothing is left of the twin.
func (m *mover) here(ctx context.Context, t *testing.T) {
	t.Helper()
	ended(ctx, t, m.twin.VM)
	m.works(ctx, t)
}

// there checks that the guest has moved.
func (m *mover) there(ctx context.Context, t *testing.T) {
	t.Helper()
	ended(ctx, t, m.vm)
	require.NoError(t, m.twin.Arrived(ctx))
	m.vm = m.twin.VM
	m.works(ctx, t)
}

func (m *mover) works(ctx context.Context, t *testing.T) {
	t.Helper()
	m.awaitAgent(ctx, t)
	assert.Equal(t, []string{m.a.ID}, settled(ctx, t, m.s, m.vm).Store)
	onHost(ctx, t, m.s, "ping", "-c", "1", "-W", "5", m.a.Addr(false))
	onHost(ctx, t, m.s, "ping", "-c", "1", "-W", "5", m.a.Addr(true))
	assert.NotRegexp(t, `brf[0-9a-f]{10}m`, onHost(ctx, t, m.s, "ip", "-o", "link"))
	assert.Contains(t, run(ctx, t, m.s, "gc", "--dry-run"), "nothing to remove")
}

// ended checks that a QEMU ends.
func ended(ctx context.Context, t *testing.T, vm *vmlab.VM) {
	t.Helper()
	select {
	case <-vm.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "a QEMU that the guest is not in still runs")
	case <-ctx.Done():
		require.Fail(t, "a QEMU that the guest is not in still runs")
	}
}

// TestIntegrationMigrationCrash kills the daemon at each step of a migration. The next
// one finds the guest where it is, and nothing is left of the QEMU that it is not in.
func TestIntegrationMigrationCrash(t *testing.T) {
	ctx, m := newMover(t)
	for _, c := range []struct {
		name  string
		moved bool
	}{
		{"migrate.recorded", false},
		{"migrate.plugged", false},
		{"migrate.moved", true},
		{"migrate.arrived", true},
		{"migrate.settled", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.restart(ctx, t, c.name+"=kill")
			m.awaitAgent(ctx, t)
			require.Error(t, m.await(ctx, t, m.start(ctx, t, time.Minute)))
			m.restart(ctx, t)
			if c.moved {
				m.there(ctx, t)
			} else {
				m.here(ctx, t)
			}
		})
	}
	t.Run("under way", func(t *testing.T) {
		result := m.slowly(ctx, t, 5*time.Minute)
		m.s.KillDaemon()
		require.Error(t, m.await(ctx, t, result))
		require.NoError(t, m.s.StartDaemon(ctx))
		m.here(ctx, t)
	})
	m.restart(ctx, t)
	m.awaitAgent(ctx, t)
	require.NoError(t, m.await(ctx, t, m.start(ctx, t, time.Minute)))
	m.there(ctx, t)
	assertWorks(ctx, t, m.s, m.vm)
}

// TestIntegrationMigrationFails has migrations fail. The guest goes on where it was, or
// is gone when its QEMU was killed, and is never in two places.
func TestIntegrationMigrationFails(t *testing.T) {
	ctx, m := newMover(t)
	t.Run("destination killed", func(t *testing.T) {
		result := m.slowly(ctx, t, 5*time.Minute)
		m.twin.Kill()
		require.Error(t, m.await(ctx, t, result))
		m.here(ctx, t)
	})
	t.Run("too slow", func(t *testing.T) {
		result := m.slowly(ctx, t, 10*time.Second)
		require.ErrorContains(t, m.await(ctx, t, result), "not done within 10s")
		m.here(ctx, t)
	})
	t.Run("attach meanwhile", func(t *testing.T) {
		result := m.slowly(ctx, t, 5*time.Minute)
		res, err := m.s.Brfuse(ctx, "attach", "--vm", "vm1", "--pod", "web", "--ifname", "net1", "--timeout", "1s")
		require.NoError(t, err)
		assert.NotEqual(t, 0, res.Code)
		assert.Regexp(t, `vm1 +migrating`, run(ctx, t, m.s, "vm", "list"))
		attached := make(chan error, 1)
		go func() {
			_, err := m.s.MustBrfuse(ctx, "attach", "--vm", "vm1", "--pod", "web", "--ifname", "net1", "--no-default-route")
			attached <- err
		}()
		_, err = m.vm.Monitor().Do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40})
		require.NoError(t, err)
		require.NoError(t, m.await(ctx, t, result))
		ended(ctx, t, m.vm)
		require.NoError(t, m.twin.Arrived(ctx))
		m.vm = m.twin.VM
		require.NoError(t, m.await(ctx, t, attached))
		assert.Len(t, settled(ctx, t, m.s, m.vm).Store, 2)
		run(ctx, t, m.s, "detach", "--pod", "web", "--ifname", "net1")
		m.works(ctx, t)
	})
	t.Run("source killed", func(t *testing.T) {
		result := m.slowly(ctx, t, 5*time.Minute)
		m.vm.Kill()
		require.Error(t, m.await(ctx, t, result))
		ended(ctx, t, m.twin.VM)
		awaitGone(ctx, t, m.s, m.a.ID)
		assertNothingLeft(ctx, t, m.s, m.vm)
	})
}

// TestIntegrationMigrationRefused refuses migrations that can't work, and leaves
// everything as it is.
func TestIntegrationMigrationRefused(t *testing.T) {
	ctx, m := newMover(t)
	here := m.vm.Ref()
	other, err := m.s.Boot(ctx, "vm2", 31)
	require.NoError(t, err)
	m.twin = newTwin(ctx, t, m.vm, "-more", "-device", "virtio-rng-pci,id=more")
	for _, c := range []struct {
		name, qmp, channel, code, text string
	}{
		{"same", here.QMP, here.Channel, "invalid", "give the one that waits sockets of its own"},
		{"nobody", m.s.Dir + "/none.qmp", m.s.Dir + "/none.agent", "vm_gone", "no such socket"},
		{"a guest runs there", other.Ref().QMP, other.Ref().Channel, "invalid", "start one with -incoming defer"},
		{"another machine", m.twin.Ref().QMP, m.twin.Ref().Channel, "differs", "device more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(ctx, t, m.s, c.code, c.text, "vm", "migrate", "vm1", "--qmp", c.qmp, "--channel", c.channel)
		})
	}
	_, err = m.twin.Monitor().Do(ctx, "query-status", nil)
	require.NoError(t, err, "a QEMU that was refused is left alone")
	m.works(ctx, t)
	run(ctx, t, m.s, "vm", "add", "vm2", "--qmp", other.Ref().QMP, "--channel", other.Ref().Channel)
	fails(ctx, t, m.s, "in_use", "vm2", "vm", "migrate", "vm1", "--qmp", other.Ref().QMP, "--channel", here.Channel+"2")
	m.works(ctx, t)
}
