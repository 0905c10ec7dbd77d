package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/metrics"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/orchestrator/store/storetest"
	"github.com/brfuse/brfuse/vnic"
)

func TestStoreConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		m := metrics.New("v1")
		t.Cleanup(m.Close)
		return m.Store(memstore.New())
	})
}

func TestStoreOutcomes(t *testing.T) {
	cases := []struct {
		name string
		err  error // of the transaction's function
		want string
	}{
		{"none", nil, "ok"},
		{"its own", errors.New("no"), "refused"},
		{"its own, with a code", fmt.Errorf("x: %w", vnic.ErrConflict), "refused"},
		{"passed on from a read", fmt.Errorf("x: %w", store.ErrUnavailable), "store_unavailable"},
		{"gave up", context.DeadlineExceeded, "deadline_exceeded"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rig{t: t, m: metrics.New("v1")}
				t.Cleanup(r.m.Close)
				s := r.m.Store(memstore.New())
				require.ErrorIs(t, s.View(t.Context(), func(store.ReadTx) error { return c.err }), c.err)
				_, err := s.Update(t.Context(), func(store.Tx) error { return c.err })
				require.ErrorIs(t, err, c.err)
				assert.Equal(t, `store_request_duration_seconds_count{op="update",outcome="`+c.want+`"} 1
store_request_duration_seconds_count{op="view",outcome="`+c.want+`"} 1`, of(r.scrape(), "store_request_duration_seconds_count"))
			})
		})
	}
}

func TestStoreWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, m: metrics.New("v1")}
		t.Cleanup(r.m.Close)
		s := r.m.Store(memstore.New())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			for _, err := range s.Watch(ctx, "a/", 0) {
				if err != nil {
					ended <- err
				}
			}
		}()
		synctest.Wait()
		for _, key := range []string{"a/1", "b/1", "a/2"} {
			_, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(key, nil) })
			require.NoError(t, err)
		}
		synctest.Wait()
		all := []string{"store_watches", "store_watch_events_total", "store_watch_ends_total"}
		assert.Equal(t, "store_watch_events_total 2\nstore_watches 1", of(r.scrape(), all...))
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		synctest.Wait()
		assert.Equal(t, "store_watch_ends_total{outcome=\"canceled\"} 1\nstore_watch_events_total 2\nstore_watches 0", of(r.scrape(), all...))
		require.NoError(t, s.Close())
		for _, err := range s.Watch(t.Context(), "a/", 0) {
			require.Error(t, err)
		}
		assert.Equal(t, "1", r.scrape()[`store_watch_ends_total{outcome="closed"}`])
	})
}
