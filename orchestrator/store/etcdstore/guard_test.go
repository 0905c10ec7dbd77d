package etcdstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// TestLargeScanNoticesDeletions deletes below a prefix while a transaction that has
// scanned it goes on: it has to be run again, whatever the depths of both.
func TestLargeScanNoticesDeletions(t *testing.T) {
	t.Parallel()
	s := open(t, etcdtest.Start(t, etcdtest.Options{}))
	const dir = "a/b/c/d/e/"
	scans := []string{"", "a", "a/", "a/b", "a/b/", "a/b/c/", "a/b/c/d/", dir, dir + "0"}
	deletions := map[string]func(store.Tx) error{"one key": func(tx store.Tx) error { return tx.Delete(dir + "007") }}
	for _, prefix := range append(scans, dir+"00") {
		deletions["prefix "+prefix] = func(tx store.Tx) error { return tx.DeletePrefix(prefix) }
	}
	for _, scan := range scans {
		for name, deletion := range deletions {
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				for i := range 60 {
					if err := tx.Put(fmt.Sprintf("%s%03d", dir, i), nil); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(t, err)
			var seen []int
			_, err = s.Update(t.Context(), func(tx store.Tx) error {
				items, err := tx.Scan(scan, 0)
				if err != nil {
					return err
				}
				if seen = append(seen, len(items)); len(seen) == 1 {
					if _, err := s.Update(t.Context(), deletion); err != nil {
						return err
					}
				}
				return tx.Put("count", fmt.Append(nil, len(items)))
			})
			require.NoError(t, err)
			require.Greater(t, len(seen), 1, "scan of %q, deletion of %s", scan, name)
			assert.Less(t, seen[len(seen)-1], seen[0], "scan of %q, deletion of %s", scan, name)
		}
	}
}

// TestLargeScanGoesOnBesideOtherDeletions: what is deleted in other directories is no
// reason to run a transaction again.
func TestLargeScanGoesOnBesideOtherDeletions(t *testing.T) {
	t.Parallel()
	s := open(t, etcdtest.Start(t, etcdtest.Options{}))
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := range 60 {
			if err := tx.Put(fmt.Sprintf("on/a/key/%03d", i), nil); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	for _, key := range []string{"on/b/key/1", "on/a/attachment/1", "lease/1", "on/1"} {
		put(t, s, key, "")
		var runs int
		_, err := s.Update(t.Context(), func(tx store.Tx) error {
			items, err := tx.Scan("on/a/key/", 0)
			if err != nil {
				return err
			}
			if runs++; runs == 1 {
				if _, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(key) }); err != nil {
					return err
				}
			}
			return tx.Put("count", fmt.Append(nil, len(items)))
		})
		require.NoError(t, err)
		assert.Equal(t, 1, runs, key)
	}
}

// TestNothingPilesUp: however many keys come and go, in directories of their own, etcd
// has no more of them in the end.
func TestNothingPilesUp(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/pile"})
	require.NoError(t, err)
	count := func() int64 {
		got, err := client(t, c).Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithCountOnly())
		require.NoError(t, err)
		return got.Count
	}
	churn := func(first int) {
		for i := range 100 {
			keys := []string{fmt.Sprintf("on/hv/ipam/queue/%d/key", first+i), fmt.Sprintf("on/hv/key/vm/pod%d/eth0", first+i)}
			for _, k := range keys {
				put(t, s, k, "")
			}
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				if err := tx.Delete(keys[0]); err != nil {
					return err
				}
				return tx.DeletePrefix(strings.TrimSuffix(keys[1], "eth0"))
			})
			require.NoError(t, err)
		}
	}
	churn(0)
	before := count()
	churn(1000)
	assert.Equal(t, before, count())
	assert.Less(t, before, int64(20))
	require.NoError(t, s.Close())
}
