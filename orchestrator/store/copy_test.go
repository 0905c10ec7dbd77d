package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
)

// filled returns a store with n keys under "a/", each of size bytes, and one under "b/".
func filled(t *testing.T, n, size int) store.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			if err := tx.Put(fmt.Sprintf("a/%04d", i), make([]byte, size)); err != nil {
				return err
			}
		}
		return tx.Put("b/", []byte("x"))
	})
	require.NoError(t, err)
	return s
}

// bounded counts commits, and fails those that etcd would not take.
type bounded struct {
	store.Store
	commits int
}

type boundedTx struct {
	store.Tx
	ops, size int
}

func (tx *boundedTx) Put(key string, value []byte) error {
	tx.ops++
	tx.size += len(key) + len(value)
	return tx.Tx.Put(key, value)
}

func (s *bounded) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	s.commits++
	return s.Store.Update(ctx, func(tx store.Tx) error {
		b := &boundedTx{Tx: tx}
		if err := fn(b); err != nil {
			return err
		}
		if b.ops > 120 || b.size > 1<<20 && b.ops > 1 {
			return errors.New("too large")
		}
		return nil
	})
}

func TestCopy(t *testing.T) {
	cases := []struct {
		name          string
		n, size       int
		prefixes      []string
		keys, commits int
	}{
		{"many", 1000, 10, nil, 1001, 11},
		{"one prefix", 1000, 10, []string{"b/"}, 1, 1},
		{"overlapping prefixes", 150, 10, []string{"b", "a/", "a/0"}, 151, 2},
		{"large values", 20, 100 << 10, nil, 21, 4},
		{"values larger than a batch", 3, 600 << 10, nil, 4, 4},
		{"nothing", 3, 1, []string{"zz"}, 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			from := filled(t, c.n, c.size)
			to := &bounded{Store: memstore.New()}
			n, err := store.Copy(t.Context(), from, to, c.prefixes...)
			require.NoError(t, err)
			assert.Equal(t, c.keys, n)
			assert.Equal(t, c.commits, to.commits)
			if c.keys > 0 {
				_, err = store.Copy(t.Context(), from, to)
				require.ErrorIs(t, err, store.ErrNotEmpty)
				assert.Equal(t, c.commits, to.commits, "a refused copy writes nothing")
			}
		})
	}
}

// TestCopyIsVerified has another writer in the target meanwhile.
func TestCopyIsVerified(t *testing.T) {
	to := &intruded{Store: memstore.New()}
	_, err := store.Copy(t.Context(), filled(t, 3, 1), to)
	require.ErrorIs(t, err, store.ErrChanged)
	assert.ErrorContains(t, err, "the target has 5 keys, and not the 4 of the source")
}

type intruded struct{ store.Store }

func (s *intruded) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	return s.Store.Update(ctx, func(tx store.Tx) error { return errors.Join(fn(tx), tx.Put("c", nil)) })
}
