package etcdstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// rig is a store that reaches etcd by a proxy, and another that needs none.
type rig struct {
	c        *etcdtest.Cluster
	p        *proxy
	s, other *etcdstore.Store
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, c.Endpoints()[0])
	return &rig{
		c, p,
		openWith(t, etcdstore.Config{Endpoints: []string{p.addr}, RequestTimeout: 1500 * time.Millisecond, DialTimeout: 10 * time.Second}),
		openWith(t, etcdstore.Config{Endpoints: c.Endpoints()}),
	}
}

// TestAnswerIsLost cuts the connection after the commit was made, so that its answer
// is lost: the update succeeds, once, with the revision of the commit.
func TestAnswerIsLost(t *testing.T) {
	r := newRig(t)
	made := r.other.Watch(t.Context(), "n", 0)
	type result struct {
		rev int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		rev, err := r.s.Update(t.Context(), func(tx store.Tx) error {
			defer r.p.hold(replies, true)
			return increment(tx)
		})
		done <- result{rev, err}
	}()
	var rev int64
	for ev, err := range made {
		require.NoError(t, err)
		rev = ev.Rev
		break
	}
	r.p.cut()
	r.p.hold(replies, false)
	assert.Equal(t, result{rev: rev}, <-done)
	assert.Equal(t, "1", string(get(t, r.s, "n").Value))
	put(t, r.s, "a", "the mark is good for more")
}

// TestRequestIsLost cuts the connection before the commit gets to etcd: it is made
// by another, once.
func TestRequestIsLost(t *testing.T) {
	r := newRig(t)
	runs := 0
	_, err := r.s.Update(t.Context(), func(tx store.Tx) error {
		err := increment(tx)
		if runs++; runs == 1 {
			r.p.hold(requests, true)
			context.AfterFunc(deadline(t, 100*time.Millisecond), func() {
				r.p.cut()
				r.p.hold(requests, false)
			})
		}
		return err
	})
	require.NoError(t, err)
	assert.Equal(t, 2, runs)
	assert.Equal(t, "1", string(get(t, r.s, "n").Value))
}

// TestNoAnswer holds up all answers until the caller has given up on its commit and
// on learning the outcome: the error says that nobody knows.
func TestNoAnswer(t *testing.T) {
	r := newRig(t)
	rev := put(t, r.s, "n", "0")
	_, err := r.s.Update(t.Context(), func(tx store.Tx) error {
		defer r.p.hold(replies, true)
		return increment(tx)
	})
	require.ErrorIs(t, err, store.ErrUnclear)
	require.ErrorIs(t, err, store.ErrUnavailable)
	r.p.cut()
	r.p.hold(replies, false)
	assert.Equal(t, "1", string(get(t, r.s, "n").Value), "it was made")
	assert.Greater(t, get(t, r.s, "n").Rev, rev)
	eventually(t.Context(), t, r.s, increment)
	assert.Equal(t, "2", string(get(t, r.s, "n").Value))
}

// TestContextEndsInCommit ends the context of an update while its commit is under
// way: what is returned is what has happened.
func TestContextEndsInCommit(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	made := r.other.Watch(t.Context(), "n", 0)
	done := make(chan error, 1)
	go func() {
		_, err := r.s.Update(ctx, func(tx store.Tx) error {
			defer r.p.hold(replies, true)
			return increment(tx)
		})
		done <- err
	}()
	for _, err := range made {
		require.NoError(t, err)
		break
	}
	cancel()
	r.p.hold(replies, false)
	require.NoError(t, <-done, "it was made")
}

// TestMarksAreLost takes the lease of the marks away, as happens to a program that
// stands still for long.
func TestMarksAreLost(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints()})
	put(t, s, "n", "0")
	cli := client(t, c)
	marks := func() (leases []int64) {
		resp, err := cli.Get(t.Context(), "/brfuse/mark/", clientv3.WithPrefix())
		require.NoError(t, err)
		for _, kv := range resp.Kvs {
			leases = append(leases, kv.Lease)
		}
		return leases
	}
	before := marks()
	require.Len(t, before, 1)
	_, err := cli.Revoke(t.Context(), clientv3.LeaseID(before[0]))
	require.NoError(t, err)
	_, err = s.Update(t.Context(), increment)
	require.NoError(t, err)
	assert.Equal(t, "1", string(get(t, s, "n").Value))
	assert.NotEqual(t, before, marks())
	require.NoError(t, s.Close())
	assert.Empty(t, marks(), "a store that is closed leaves none")
}

// deadline returns a context that ends after a while.
func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
