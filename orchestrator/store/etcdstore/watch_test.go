package etcdstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// TestPausedWatcher has a reader stand still while more is written than any buffer
// on the way takes, and etcd is compacted: it gets all events up to some revision,
// and is then told that the others are forgotten. Meanwhile nobody waits for it.
func TestPausedWatcher(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := open(t, c)
	const writes = 300
	first := put(t, s, "k", "first")
	var last int64
	var got error
	next := first
	for ev, err := range s.Watch(t.Context(), "", first) {
		if err != nil {
			got = err
			break
		}
		require.Equal(t, next, ev.Rev, "each commit is one revision")
		next++
		if ev.Rev == first {
			for range writes {
				last = put(t, s, "k", string(make([]byte, 16<<10)))
			}
			_, err := c.Compact(t.Context())
			require.NoError(t, err)
		}
	}
	require.ErrorIs(t, got, store.ErrCompacted)
	assert.Less(t, next, last)
	assert.ErrorContains(t, got, fmt.Sprintf(`watch "" from revision %d`, next))
}

// TestIdleWatcher has nothing to see for a watch while others write, etcd is
// compacted and restarted: as etcd tells of its progress, the watch goes on.
func TestIdleWatcher(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{Args: []string{"--experimental-watch-progress-notify-interval", "100ms"}})
	s := open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begin := put(t, s, "b", "1")
	idle := make(chan error, 1)
	go func() {
		for ev, err := range s.Watch(ctx, "a", begin+1) {
			if err == nil && string(ev.Value) != "done" {
				err = fmt.Errorf("unexpected event %v", ev)
			}
			idle <- err
			return
		}
	}()
	for range 5 {
		put(t, s, "b", "2")
	}
	awaitProgress(ctx, t, c)
	_, err := c.Compact(ctx)
	require.NoError(t, err)
	c.Members[0].Kill()
	require.NoError(t, c.Members[0].Start(ctx))
	eventually(ctx, t, s, func(tx store.Tx) error { return tx.Put("a", []byte("done")) })
	require.NoError(t, <-idle)
}

// awaitProgress waits until etcd has told of its progress to a watch that is begun
// now, and so to those that it has served before.
func awaitProgress(ctx context.Context, t *testing.T, c *etcdtest.Cluster) {
	t.Helper()
	cli := client(t, c)
	told := 0
	for resp := range cli.Watch(ctx, "nothing", clientv3.WithProgressNotify()) {
		require.NoError(t, resp.Err())
		if resp.IsProgressNotify() {
			if told++; told == 3 {
				return
			}
		}
	}
	require.NoError(t, ctx.Err())
}
