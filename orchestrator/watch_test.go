package orchestrator_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
)

func TestWatch(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("db", "eth0")
		ctx, cancel := context.WithCancel(r.t.Context())
		var seen []string
		var last error
		done := make(chan struct{})
		go func() {
			defer close(done)
			for a, err := range r.orch.Watch(ctx) {
				if last = err; err == nil {
					seen = append(seen, a.Request.Pod+" "+string(a.Phase))
				}
			}
		}()
		synctest.Wait()
		a := r.attach("web", "eth0")
		_, err := r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		synctest.Wait()
		cancel()
		<-done
		assert.Equal(r.t, []string{
			"db ready", "web leased", "web plugged", "web moved", "web ready", "web detaching", "web released",
		}, seen)
		require.ErrorIs(r.t, last, context.Canceled)
	})
}

// TestWatchSlowly has a reader that sleeps while more happens than the store
// remembers: it gets the state anew, and is told of what vanished.
func TestWatchSlowly(t *testing.T) {
	inRig(t, func(r *rig) {
		gone := r.attach("db", "eth0")
		seen := map[string]bool{}
		first := true
		for a, err := range r.orch.Watch(r.t.Context()) {
			require.NoError(r.t, err)
			seen[a.Request.Pod+" "+string(a.Phase)] = true
			if first {
				first = false
				_, err := r.orch.Detach(r.t.Context(), gone.ID)
				require.NoError(r.t, err)
				r.attach("web", "eth0")
				for range 3000 {
					_, err := r.store.Update(r.t.Context(), func(tx store.Tx) error { return tx.Put("noise", nil) })
					require.NoError(r.t, err)
				}
			}
			if seen["db released"] && seen["web ready"] {
				break
			}
		}
		assert.Equal(r.t, map[string]bool{"db ready": true, "db released": true, "web ready": true}, seen)
	})
}
