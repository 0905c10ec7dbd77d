package orchestrator_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// TestCopyStore moves a hypervisor with pods, a pool and a published port to a shared
// store: nothing of what runs is touched, and all can be detached there.
func TestCopyStore(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		require.NoError(t, r.orch.SetPool(t.Context(), vnic.Pool{VM: "vm1", Network: "red", Low: 2, High: 4}))
		synctest.Wait()
		web, db := r.attach("web", "eth0"), r.attach("db", "eth0")
		before := r.world.String()
		r.conn.Crash()
		require.NoError(t, r.orch.Close())

		shared := memstore.New()
		n, err := orchestrator.CopyStore(t.Context(), r.store, shared, "a")
		require.NoError(t, err)
		assert.Positive(t, n)
		_, err = orchestrator.CopyStore(t.Context(), r.store, shared, "a")
		require.ErrorIs(t, err, store.ErrNotEmpty)

		h := &hypervisor{t: t, name: "a", world: r.world, shared: shared}
		h.cfg.Cluster = &orchestrator.Cluster{
			Self:    vnic.Hypervisor{Name: "a", Underlay: netip.MustParseAddr("192.0.2.1"), MTU: 1450},
			Overlay: h, KeepAlive: h.keepAlive,
		}
		h.start()
		pass(time.Minute)
		assert.Equal(t, before, r.world.String())
		got, err := h.orch.Get(t.Context(), web.ID)
		require.NoError(t, err)
		assert.Equal(t, web.Leases, got.Leases)
		again, err := h.orch.Attach(t.Context(), request("web", "eth0"))
		require.NoError(t, err)
		assert.Equal(t, web.ID, again.ID)
		gone, err := h.orch.GC(t.Context(), true)
		require.NoError(t, err)
		assert.Empty(t, gone)
		owner, err := h.orch.HypervisorOfAttachment(t.Context(), db.ID)
		require.NoError(t, err)
		assert.Equal(t, "a", owner.Name)

		for _, a := range []vnic.Attachment{web, db} {
			_, err := h.orch.Detach(t.Context(), a.ID)
			require.NoError(t, err)
		}
		require.NoError(t, h.orch.RemoveVM(t.Context(), "vm1", true))
		pass(time.Minute)
		require.NoError(t, shared.View(context.Background(), func(tx store.ReadTx) error {
			for _, prefix := range []string{"ipam/lease/", "ipam/mac/", "endpoint/", "owner/", "on/a/attachment/", "on/a/vnic/"} {
				items, err := tx.Scan(prefix, 0)
				if err != nil {
					return err
				}
				assert.Empty(t, items, prefix)
			}
			return nil
		}))
	})
}
