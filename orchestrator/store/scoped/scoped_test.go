package scoped_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
)

var own = []string{"vm/", "ipam/owner/"}

func two(t *testing.T) (raw store.Store, a, b *scoped.Store) {
	t.Helper()
	raw = memstore.New()
	t.Cleanup(func() { assert.NoError(t, raw.Close()) })
	return raw, scoped.New(raw, "on/a/", own), scoped.New(raw, "on/b/", own)
}

func put(t *testing.T, s store.Store, kv ...string) int64 {
	t.Helper()
	rev, err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := 0; i < len(kv); i += 2 {
			if err := tx.Put(kv[i], []byte(kv[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	return rev
}

func scan(t *testing.T, s store.Store, prefix string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan(prefix, 0)
		for _, it := range items {
			found[it.Key] = string(it.Value)
		}
		return err
	}))
	return found
}

// TestTwoUsers: own keys are apart, common ones are not, in one transaction.
func TestTwoUsers(t *testing.T) {
	raw, a, b := two(t)
	put(t, a, "vm/1", "a's", "network/blue", "a's")
	put(t, b, "vm/1", "b's", "network/blue", "b's")
	assert.Equal(t, map[string]string{"on/a/vm/1": "a's", "on/b/vm/1": "b's", "network/blue": "b's"}, scan(t, raw, ""))
	assert.Equal(t, map[string]string{"vm/1": "a's"}, scan(t, a, "vm/"))
	assert.Equal(t, map[string]string{"network/blue": "b's"}, scan(t, a, "network/"))
	require.NoError(t, a.View(t.Context(), func(tx store.ReadTx) error {
		it, err := tx.Get("vm/1")
		assert.Equal(t, "vm/1", it.Key)
		assert.Equal(t, "a's", string(it.Value))
		return err
	}))
	_, err := a.Update(t.Context(), func(tx store.Tx) error {
		require.NoError(t, tx.Put("vm/2", nil))
		items, err := tx.Scan("vm/", 0)
		assert.Len(t, items, 2, "it reads its own writes")
		require.NoError(t, tx.Delete("network/blue"))
		require.NoError(t, tx.DeletePrefix("vm/"))
		return err
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"on/b/vm/1": "b's"}, scan(t, raw, ""))
}

// TestScanOfBoth: a prefix that covers own and common keys is refused.
func TestScanOfBoth(t *testing.T) {
	_, a, _ := two(t)
	for _, prefix := range []string{"", "v", "ipam/"} {
		err := a.View(t.Context(), func(tx store.ReadTx) error { _, err := tx.Scan(prefix, 0); return err })
		require.ErrorContains(t, err, "lie in two places")
		_, err = a.Update(t.Context(), func(tx store.Tx) error { return tx.DeletePrefix(prefix) })
		require.ErrorContains(t, err, "lie in two places")
		for _, err := range a.Watch(t.Context(), prefix, 0) {
			require.ErrorContains(t, err, "lie in two places")
		}
	}
	assert.Empty(t, scan(t, a, "ipam/lease/"))
}

func TestWatch(t *testing.T) {
	raw, a, b := two(t)
	rev := put(t, a, "vm/1", "x")
	put(t, b, "vm/2", "of b")
	_, err := a.Update(t.Context(), func(tx store.Tx) error { return tx.Delete("vm/1") })
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []string
	for ev, err := range a.Watch(ctx, "vm/", rev) {
		require.NoError(t, err)
		seen = append(seen, ev.Key)
		if ev.Deleted {
			break
		}
	}
	assert.Equal(t, []string{"vm/1", "vm/1"}, seen)
	require.NoError(t, a.Close())
	require.Error(t, raw.View(t.Context(), func(store.ReadTx) error { return nil }))
}

// TestPlaced copies the store of a single user to where its scope looks for it.
func TestPlaced(t *testing.T) {
	single, shared := memstore.New(), memstore.New()
	put(t, single, "vm/1", "x", "network/blue", "y", "ipam/owner/1", "z")
	from := scoped.Placed(single, "on/a/", own)
	n, err := store.Copy(t.Context(), from, shared)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, map[string]string{"on/a/vm/1": "x", "network/blue": "y", "on/a/ipam/owner/1": "z"}, scan(t, shared, ""))
	assert.Equal(t, map[string]string{"vm/1": "x"}, scan(t, scoped.New(shared, "on/a/", own), "vm/"))
	require.NoError(t, from.View(t.Context(), func(tx store.ReadTx) error {
		it, err := tx.Get("on/a/vm/1")
		assert.Equal(t, "x", string(it.Value))
		none, nerr := tx.Get("vm/1")
		assert.False(t, none.Exists())
		require.NoError(t, nerr)
		return err
	}))
}
