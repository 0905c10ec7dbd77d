package orchestrator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// fakeMigrator moves VMs in no time, unless told otherwise.
type fakeMigrator struct {
	check   error
	migrate func(ctx context.Context) error // nil: it works
	coming  map[vnic.ID]string

	mu     sync.Mutex
	settle func() (moved bool, err error) // guarded by mu
	orders []vnic.Migration               // guarded by mu; of Migrate and SettleMigration
}

func (f *fakeMigrator) note(m vnic.Migration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, m)
}

func (f *fakeMigrator) CheckMigration(context.Context, vnic.Migration) error { return f.check }

func (f *fakeMigrator) Migrate(ctx context.Context, m vnic.Migration) error {
	f.note(m)
	if f.migrate == nil {
		return nil
	}
	return f.migrate(ctx)
}

func (f *fakeMigrator) SettleMigration(_ context.Context, m vnic.Migration) (bool, error) {
	f.note(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settle()
}

// settles says what SettleMigration returns.
func (f *fakeMigrator) settles(moved bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle = func() (bool, error) { return moved, err }
}

func (f *fakeMigrator) ComingTaps(context.Context) (map[vnic.ID]string, error) { return f.coming, nil }

func (f *fakeMigrator) RemoveComingTap(_ context.Context, id vnic.ID) error {
	delete(f.coming, id)
	return nil
}

func next() vnic.VM { return vnic.VM{QMP: "/run/vm/next.qmp", Channel: "/run/vm/next.agent"} }

// inMigrationRig is inRig with a host that moves VMs.
func inMigrationRig(t *testing.T, test func(r *rig, f *fakeMigrator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMigrator{}
		f.settles(true, nil)
		r := newRig(t)
		r.cfg.Migrator = f
		r.restart()
		synctest.Wait()
		test(r, f)
	})
}

// qmp returns where the VM is.
func (r *rig) qmp() string {
	r.t.Helper()
	v, err := r.orch.VM(r.t.Context(), "vm1")
	require.NoError(r.t, err)
	return v.QMP
}

func TestMigrate(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		a := r.attach("web", "eth0")
		require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "red", Low: 1, High: 2}))
		r.settleDown()
		v, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.VM{Name: "vm1", QMP: next().QMP, Channel: next().Channel}, v)
		assert.Equal(r.t, next().QMP, r.qmp())

		require.Len(r.t, f.orders, 2, "of Migrate and SettleMigration")
		assert.Equal(r.t, f.orders[0], f.orders[1])
		m := f.orders[0]
		assert.Equal(r.t, vm("vm1"), m.From)
		assert.Equal(r.t, v, m.To)
		require.Len(r.t, m.VNICs, 2)
		assert.Equal(r.t, a.ID, m.VNICs[0].ID)
		assert.Len(r.t, m.VNICs[0].Addresses, 2)
		assert.False(r.t, m.VNICs[0].Parked)
		assert.Equal(r.t, "red", m.VNICs[1].Network)
		assert.True(r.t, m.VNICs[1].Parked)

		r.settleDown()
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		r.attach("db", "eth0")
		_, err = r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
	})
}

// TestMigrateCloses has attaches and detaches wait while the VM is moved, and what is
// being done to the VM end first.
func TestMigrateCloses(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		a := r.attach("web", "eth0")
		attaching, goOn := make(chan struct{}), make(chan struct{})
		r.world.Before("plug", func(context.Context) error { close(attaching); <-goOn; return nil })
		results := make(chan error, 4)
		go func() {
			_, err := r.orch.Attach(r.t.Context(), request("web", "net1"))
			results <- err
		}()
		<-attaching
		r.world.Before("plug", nil)
		moving, arrive := make(chan struct{}), make(chan struct{})
		f.migrate = func(context.Context) error { close(moving); <-arrive; return nil }
		go func() {
			_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
			results <- err
		}()
		synctest.Wait()
		select {
		case <-moving:
			require.Fail(r.t, "the migration has to wait for the attach")
		default:
		}
		close(goOn)
		require.NoError(r.t, <-results, "the attach that was under way")
		<-moving

		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		_, err := r.orch.Attach(ctx, request("db", "eth0"))
		require.ErrorContains(r.t, err, "vm vm1 is being migrated")
		require.ErrorIs(r.t, err, context.DeadlineExceeded)
		require.ErrorIs(r.t, r.orch.Reconcile(ctx, "vm1"), context.DeadlineExceeded)
		go func() {
			_, err := r.orch.Attach(r.t.Context(), request("db", "eth0"))
			results <- err
		}()
		go func() {
			_, err := r.orch.Detach(r.t.Context(), a.ID)
			results <- err
		}()
		r.settleDown()
		assert.Equal(r.t, "vm1/web/eth0 ready\nvm1/web/net1 ready", sortedLines(r.list()))
		close(arrive)
		for range 3 {
			require.NoError(r.t, <-results)
		}
		assert.Equal(r.t, "vm1/db/eth0 ready\nvm1/web/net1 ready", sortedLines(r.list()))
	})
}

func TestMigrateFails(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		r.attach("web", "eth0")
		broken := errors.New("broken stream")
		f.migrate = func(context.Context) error { return broken }
		f.settles(false, nil)
		_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.ErrorIs(r.t, err, broken)
		assert.Equal(r.t, vm("vm1").QMP, r.qmp())
		r.attach("db", "eth0")

		f.migrate = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		_, err = r.orch.MigrateVM(r.t.Context(), "vm1", next(), time.Minute)
		require.ErrorContains(r.t, err, "not done within 1m0s")
		r.attach("web", "net1")

		f.migrate = nil
		_, err = r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.ErrorIs(r.t, err, vnic.ErrVMGone, "it moved, and ended there")
		f.settles(true, nil)
		_, err = r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.NoError(r.t, err)
	})
}

// TestMigrateUnsettled keeps a VM closed as long as nobody knows where it is, whether
// the daemon lives on or not.
func TestMigrateUnsettled(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart bool
		moved   bool
		qmp     string
	}{
		{"moved", false, true, next().QMP},
		{"not moved", false, false, vm("vm1").QMP},
		{"moved, restarted", true, true, next().QMP},
		{"not moved, restarted", true, false, vm("vm1").QMP},
	} {
		t.Run(c.name, func(t *testing.T) {
			inMigrationRig(t, func(r *rig, f *fakeMigrator) {
				a := r.attach("web", "eth0")
				silent := errors.New("no greeting")
				f.settles(false, silent)
				_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
				require.ErrorIs(r.t, err, silent)
				require.ErrorContains(r.t, err, "stays closed")
				if c.restart {
					r.restart()
				}
				r.settleDown()
				ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
				defer cancel()
				_, err = r.orch.Attach(ctx, request("db", "eth0"))
				require.ErrorContains(r.t, err, "vm vm1 is being migrated")
				_, err = r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
				require.ErrorIs(r.t, err, vnic.ErrInUse)
				require.ErrorIs(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", true), vnic.ErrInUse)

				f.settles(c.moved, nil)
				r.settleDown()
				assert.Equal(r.t, c.qmp, r.qmp())
				last := f.orders[len(f.orders)-1]
				require.Len(r.t, last.VNICs, 1)
				assert.Equal(r.t, a.ID, last.VNICs[0].ID)
				r.attach("db", "eth0")
				assert.Len(r.t, r.all(), 2)
			})
		})
	}
}

func TestMigrateRefused(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vnic.VM{Name: "lv", Libvirt: "qemu:///system/lv", Channel: "/run/lv"}))
		r.world.Boot("vm2", "web")
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm2")))
		for _, c := range []struct {
			name, vm string
			to       vnic.VM
			is       error
			says     string
		}{
			{"unknown", "vm9", next(), vnic.ErrUnknownVM, "brfuse vm list"},
			{"libvirt", "lv", next(), vnic.ErrUnsupported, "virsh migrate"},
			{"itself", "vm1", vm("vm1"), vnic.ErrInvalid, "sockets of its own"},
			{"its channel", "vm1", vnic.VM{QMP: next().QMP, Channel: vm("vm1").Channel}, vnic.ErrInvalid, "sockets of its own"},
			{"another vm", "vm1", vm("vm2"), vnic.ErrInUse, "that of vm vm2"},
			{"relative", "vm1", vnic.VM{QMP: "qmp", Channel: next().Channel}, vnic.ErrInvalid, "absolute"},
			{"nowhere", "vm1", vnic.VM{Channel: next().Channel}, vnic.ErrInvalid, "neither a qmp socket"},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, err := r.orch.MigrateVM(t.Context(), c.vm, c.to, 0)
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, "migrate vm "+c.vm)
				assert.ErrorContains(t, err, c.says)
			})
		}
		f.check = vnic.ErrDiffers
		_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.ErrorIs(r.t, err, vnic.ErrDiffers)
		assert.Empty(r.t, f.orders, "what is refused changes nothing")
		r.attach("web", "eth0")
	})
}

func TestMigrateWithoutMigrator(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.ErrorIs(r.t, err, vnic.ErrUnsupported)
	})
}

// TestComingTaps finds taps for the next process of a VM that isn't moved.
func TestComingTaps(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		f.coming = map[vnic.ID]string{"00000000aa": "vm1"}
		want := []string{"tap of vnic 00000000aa for the next qemu of vm vm1, which is not being moved"}
		found, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, found)
		assert.NotEmpty(r.t, f.coming)
		found, err = r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.Equal(r.t, want, found)
		assert.Empty(r.t, f.coming)
		f.coming = map[vnic.ID]string{"00000000aa": "vm1"}
		r.restart()
		synctest.Wait()
		assert.Empty(r.t, f.coming, "swept")
	})
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var _ orchestrator.Migrator = (*fakeMigrator)(nil)
