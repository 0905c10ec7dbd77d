package etcdstore_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// await waits for a channel to be closed.
func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		require.FailNow(t, "waited in vain", "for %s", what)
	}
}

func TestAlive(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	cli := client(t, c)
	cases := []struct {
		name string
		lose func(t *testing.T, s *etcdstore.Store, l *etcdstore.Lease)
		left string // the key's value when it is lost and the lease is closed
	}{
		{"closed", func(t *testing.T, _ *etcdstore.Store, l *etcdstore.Lease) {
			t.Helper()
			require.NoError(t, l.Close(t.Context()))
		}, ""},
		{"deleted", func(t *testing.T, s *etcdstore.Store, _ *etcdstore.Lease) {
			t.Helper()
			_, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Delete("host/a") })
			require.NoError(t, err)
		}, ""},
		{"taken over", func(t *testing.T, s *etcdstore.Store, _ *etcdstore.Lease) {
			t.Helper()
			_, err := s.Alive(t.Context(), "host/a", []byte("other"), time.Minute)
			require.NoError(t, err)
		}, "other"},
		{"revoked", func(t *testing.T, _ *etcdstore.Store, _ *etcdstore.Lease) {
			t.Helper()
			revoke(t, cli, "host/a")
		}, ""},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints()})
			l, err := s.Alive(t.Context(), "host/a", []byte("here"), time.Minute)
			require.NoError(t, err)
			defer func() { assert.NoError(t, l.Close(t.Context()), "it may be closed again") }()
			put(t, s, "host/ab", "another key")
			assert.Equal(t, "here", string(get(t, s, "host/a").Value))
			select {
			case <-l.Lost():
				assert.Fail(t, "it is not lost yet")
			default:
			}
			tt.lose(t, s, l)
			await(t, "the loss of the key", l.Lost())
			require.NoError(t, l.Close(t.Context()))
			assert.Equal(t, tt.left, string(get(t, s, "host/a").Value))
		})
	}
}

// revoke revokes the lease that a key is held by.
func revoke(t *testing.T, cli *clientv3.Client, key string) {
	t.Helper()
	resp, err := cli.Get(t.Context(), "/brfuse/data/"+key)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	require.NotZero(t, resp.Kvs[0].Lease)
	_, err = cli.Revoke(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
	require.NoError(t, err)
}

// TestHolderDies closes the store of a holder, as its death would: the key goes when
// its time to live is over, and a watch tells with what value.
func TestHolderDies(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints()})
	holder, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: c.Endpoints()})
	require.NoError(t, err)
	l, err := holder.Alive(t.Context(), "host/a", []byte("here"), 2*time.Second)
	require.NoError(t, err)
	watch := s.Watch(t.Context(), "host/", 0)
	require.NoError(t, holder.Close())
	await(t, "the loss of the key", l.Lost())
	require.NoError(t, l.Close(t.Context()))
	for ev, err := range watch {
		require.NoError(t, err)
		assert.True(t, ev.Deleted)
		assert.Equal(t, "here", string(ev.Value))
		break
	}
}

// TestKeepAlive takes a key away from who keeps it alive.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints()})
	cli := client(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := s.Watch(t.Context(), "host/a", 0)
	ended := make(chan error, 1)
	var held atomic.Int32
	go func() {
		ended <- s.KeepAlive(ctx, "host/a", []byte("here"), time.Minute, func() { held.Add(1) })
	}()
	var got []string
	for ev, err := range watch {
		require.NoError(t, err)
		if ev.Deleted {
			got = append(got, "-")
		} else {
			got = append(got, "+")
		}
		if len(got) == 1 {
			revoke(t, cli, "host/a")
		}
		if len(got) == 3 {
			cancel()
		}
		if len(got) == 4 {
			break
		}
	}
	require.ErrorIs(t, <-ended, context.Canceled)
	assert.Equal(t, []string{"+", "-", "+", "-"}, got)
	assert.Equal(t, int32(2), held.Load())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.KeepAlive(t.Context(), "host/a", nil, time.Minute, func() {}), os.ErrClosed)
}

// TestScanOfLeased deletes a leased key, without a commit of the store's, between a
// scan of many and its commit: the update runs again.
func TestScanOfLeased(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := openWith(t, etcdstore.Config{Endpoints: c.Endpoints()})
	cli := client(t, c)
	for i := range 50 {
		put(t, s, "host/"+string(rune('A'+i)), "x")
	}
	_, err := s.Alive(t.Context(), "host/z9", []byte("here"), time.Minute)
	require.NoError(t, err)
	var found []int
	_, err = s.Update(t.Context(), func(tx store.Tx) error {
		items, err := tx.Scan("host/", 0)
		if err != nil {
			return err
		}
		if found = append(found, len(items)); len(found) == 1 {
			revoke(t, cli, "host/z9")
		}
		return tx.Put("n", nil)
	})
	require.NoError(t, err)
	assert.Equal(t, []int{51, 50}, found)
}
