package storetest

import (
	"context"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// relative is a store whose revisions are counted from where it was opened: etcd's
// are shared by all that is in it, and don't begin at 0.
type relative struct {
	store.Store
	base int64
}

func fromZero(t *testing.T, s store.Store) *relative {
	t.Helper()
	r := &relative{Store: s}
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		r.base = tx.Rev()
		return nil
	}))
	return r
}

func (r *relative) item(it store.Item) store.Item {
	if it.Exists() {
		it.Rev -= r.base
	}
	return it
}

func (r *relative) View(ctx context.Context, fn func(store.ReadTx) error) error {
	return r.Store.View(ctx, func(tx store.ReadTx) error { return fn(relativeReadTx{tx, r}) })
}

func (r *relative) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	rev, err := r.Store.Update(ctx, func(tx store.Tx) error { return fn(relativeTx{tx, relativeReadTx{tx, r}}) })
	if err != nil {
		return 0, err
	}
	return rev - r.base, nil
}

func (r *relative) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	if from > 0 {
		from += r.base
	}
	events := r.Store.Watch(ctx, prefix, from)
	return func(yield func(store.Event, error) bool) {
		for ev, err := range events {
			ev.Item = r.item(ev.Item)
			if !yield(ev, err) {
				return
			}
		}
	}
}

type relativeReadTx struct {
	store.ReadTx
	r *relative
}

func (tx relativeReadTx) Rev() int64 { return tx.ReadTx.Rev() - tx.r.base }

func (tx relativeReadTx) Get(key string) (store.Item, error) {
	it, err := tx.ReadTx.Get(key)
	return tx.r.item(it), err
}

func (tx relativeReadTx) Scan(prefix string, limit int) ([]store.Item, error) {
	items, err := tx.ReadTx.Scan(prefix, limit)
	for i := range items {
		items[i] = tx.r.item(items[i])
	}
	return items, err
}

type relativeTx struct {
	store.Tx
	reads relativeReadTx
}

func (tx relativeTx) Rev() int64                         { return tx.reads.Rev() }
func (tx relativeTx) Get(key string) (store.Item, error) { return tx.reads.Get(key) }
func (tx relativeTx) Scan(prefix string, limit int) ([]store.Item, error) {
	return tx.reads.Scan(prefix, limit)
}
