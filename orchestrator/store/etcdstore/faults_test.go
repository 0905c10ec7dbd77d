package etcdstore_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// patience is how long a test waits for etcd to find a leader again.
const patience = 30 * time.Second

func increment(tx store.Tx) error {
	it, err := tx.Get("n")
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(it.Value)) // 0 when there is none
	return tx.Put("n", []byte(strconv.Itoa(n+1)))
}

// counts are the outcomes of increments.
type counts struct{ made, unclear, failed atomic.Int64 }

// load increments, some at a time, until n were acknowledged.
func load(ctx context.Context, t *testing.T, s store.Store, c *counts, n int64) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for c.made.Load() < n {
				switch _, err := s.Update(ctx, increment); {
				case err == nil:
					c.made.Add(1)
				case errors.Is(err, store.ErrUnclear):
					c.unclear.Add(1)
				case errors.Is(err, store.ErrUnavailable):
					c.failed.Add(1)
				default:
					assert.NoError(t, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// eventually runs an update again while etcd is unavailable.
func eventually(ctx context.Context, t *testing.T, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := s.Update(ctx, fn)
		if err == nil {
			return
		}
		if !assert.NoError(t, ctx.Err(), "etcd did not come back: %v", err) {
			return
		}
	}
}

// TestLeaderIsKilled kills etcd's leader twice while a counter is incremented: what
// was acknowledged counts once, what failed not at all, and a watch sees each.
func TestLeaderIsKilled(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	s := open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	watch := s.Watch(ctx, "", 0)
	var sum counts
	go func() {
		load(ctx, t, s, &sum, 300)
		eventually(ctx, t, s, func(tx store.Tx) error { return tx.Put("over", nil) })
	}()
	var n int64
	for ev, err := range watch {
		require.NoError(t, err)
		if ev.Key == "over" {
			break
		}
		n++
		require.Equal(t, strconv.FormatInt(n, 10), string(ev.Value), "the watch sees each change once")
		if n == 50 || n == 150 {
			leader, err := c.Leader(ctx)
			require.NoError(t, err)
			leader.Kill()
			_, err = c.Leader(ctx)
			require.NoError(t, err)
			require.NoError(t, leader.Start(ctx))
		}
	}
	t.Logf("%d acknowledged, %d unclear, %d failed: counter %d", sum.made.Load(), sum.unclear.Load(), sum.failed.Load(), n)
	assert.Equal(t, strconv.FormatInt(n, 10), string(get(t, s, "n").Value))
	assert.GreaterOrEqual(t, n, sum.made.Load())
	assert.LessOrEqual(t, n, sum.made.Load()+sum.unclear.Load())
}

// TestQuorumIsLost freezes two of three members: errors are clear, and all goes on
// when they are back.
func TestQuorumIsLost(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints(), RequestTimeout: 1500 * time.Millisecond, DialTimeout: 10 * time.Second})
	rev := put(t, s, "a", "1")
	require.NoError(t, c.Members[0].Pause())
	require.NoError(t, c.Members[1].Pause())

	read := func(ctx context.Context) error {
		return s.View(ctx, func(tx store.ReadTx) error { _, err := tx.Get("a"); return err })
	}
	var err error
	for err == nil { // what was under way may still be answered
		err = read(t.Context())
	}
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "etcd at "+c.Endpoints()[0]+","+c.Endpoints()[1])
	require.ErrorContains(t, err, "see that a majority of its members runs")
	_, err = s.Update(t.Context(), increment)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.NotErrorIs(t, err, store.ErrUnclear, "nothing was sent that could have been carried out")
	_, err = s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("blind", nil) })
	require.ErrorIs(t, err, store.ErrUnclear, "a commit was sent, and may be carried out")
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = read(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, store.ErrUnavailable)

	require.NoError(t, c.Members[0].Resume())
	require.NoError(t, c.Members[1].Resume())
	var n store.Item
	eventually(t.Context(), t, s, func(tx store.Tx) (err error) {
		n, err = tx.Get("n")
		return errors.Join(err, tx.Put("over", nil))
	})
	assert.False(t, n.Exists(), "the increment that failed was not made")
	for ev, err := range s.Watch(t.Context(), "a", rev) {
		require.NoError(t, err)
		assert.Equal(t, "1", string(ev.Value))
		break
	}
}
