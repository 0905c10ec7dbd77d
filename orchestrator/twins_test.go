package orchestrator_test

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestAddTwin registers a hypervisor a second time, by another socket of it.
func TestAddTwin(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.world.Alias("vm1", "v7")
		before := r.world.String()
		err := r.orch.AddVM(r.t.Context(), vm("v7"))
		require.ErrorIs(r.t, err, vnic.ErrInUse)
		require.EqualError(r.t, err, "add vm v7: its QEMU is that of vm1, which has vnic "+string(a.ID)+
			": use vm1, or `brfuse vm rm vm1` first: in use")
		synctest.Wait()
		assert.Equal(r.t, before, r.world.String())
		vms, err := r.orch.VMs(r.t.Context())
		require.NoError(r.t, err)
		assert.Equal(r.t, []vnic.VM{vm("vm1")}, vms)
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm1")), "the first one may be added again")

		_, err = r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		require.NoError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", false))
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("v7")))
	})
}

// TestAddVMOfSilentHost adds a VM that nothing can be learned about.
func TestAddVMOfSilentHost(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Fail("ports", errBoom)
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm2")))
	})
}

// TestTwins has two VMs that are one hypervisor, which nobody could know when
// they were added: vNICs of one are no strays of the other.
func TestTwins(t *testing.T) {
	inRig(t, func(r *rig) {
		var logged bytes.Buffer
		r.cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))
		r.restart()
		r.world.Alias("vm1", "v7")
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("v7")))
		a := r.attach("web", "eth0")
		synctest.Wait()
		before := r.world.String()
		for _, name := range []string{"v7", "vm1"} {
			require.NoError(r.t, r.orch.Reconcile(r.t.Context(), name))
		}
		found, err := r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.Empty(r.t, found)
		r.restart()
		synctest.Wait()
		assert.Equal(r.t, before, r.world.String())
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		assert.Contains(r.t, logged.String(), "two vms are the same hypervisor, remove one of them by `brfuse vm rm`\" vm=v7 other=vm1 attachment="+string(a.ID))
	})
}
