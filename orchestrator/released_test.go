package orchestrator_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// TestReleasedWhileRunning: a daemon that was only cut off from the store for too
// long takes itself back, after a restart and without one.
func TestReleasedWhileRunning(t *testing.T) {
	for name, back := range map[string]func(*hypervisor){
		"restart": func(h *hypervisor) { h.crash(); h.start(); pass(time.Second) },
		"running": (*hypervisor).revive,
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, func(c cluster) {
				t, a, b := c.t, c.hs[0], c.hs[1]
				a.createOverlay()
				web := a.attach("web")
				a.die()
				pass(2 * time.Minute)
				_, err := a.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm-a", Pod: "db", Interface: "eth0"}, Network: "over"})
				require.ErrorIs(t, err, vnic.ErrHypervisorUnavailable)
				back(a)
				assert.NotContains(t, a.world.String(), string(web.ID))
				a.attach("web")
				b.attach("db")
				assert.Len(t, b.sees(), 1)
			})
		})
	}
}

// TestForgottenWhileRunning: a daemon that was cut off from the store joins anew when it
// was forgotten meanwhile, and lets go of all that it had.
func TestForgottenWhileRunning(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.createOverlay()
		web := a.attach("web")
		a.die()
		pass(time.Second)
		require.NoError(t, b.orch.RemoveHypervisor(t.Context(), "a"))
		require.NoError(t, b.orch.AddVM(t.Context(), vm("vm-a")), "the name is free, and stays another's")
		a.revive()
		hypervisors, err := b.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		require.Len(t, hypervisors, 2)
		assert.Equal(t, "alive", hypervisors[0].State)
		assert.NotContains(t, a.world.String(), string(web.ID))
		_, err = a.orch.Attach(t.Context(), vnic.Request{Key: web.Request.Key, Network: "over"})
		require.ErrorIs(t, err, vnic.ErrUnknownVM)
		require.ErrorIs(t, a.orch.AddVM(t.Context(), vm("vm-a")), vnic.ErrInUse)
		require.NoError(t, b.orch.RemoveVM(t.Context(), "vm-a", false))
		require.NoError(t, a.orch.AddVM(t.Context(), vm("vm-a")))
		a.attach("web")
	})
}

// TestHalfReleased: a release that was interrupted is finished by the next who looks.
func TestHalfReleased(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, a, b := c.t, c.hs[0], c.hs[1]
		a.createOverlay()
		web := a.attach("web")
		b.attach("db")
		a.crash()
		_, err := c.shared.Update(t.Context(), func(tx store.Tx) error {
			r, _, err := fabric.Find(tx, "a")
			if err != nil {
				return err
			}
			r.Released = true
			v, err := json.Marshal(r)
			if err != nil {
				return err
			}
			return tx.Put(fabric.HypervisorPrefix+"a", v)
		})
		require.NoError(t, err)
		assert.Equal(t, []string{seen(web, "192.0.2.1")}, b.sees())
		pass(time.Minute)
		assert.Empty(t, b.sees())
		hypervisors, err := b.orch.Hypervisors(t.Context())
		require.NoError(t, err)
		assert.Zero(t, hypervisors[0].Attachments)
	})
}
