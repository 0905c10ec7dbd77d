package ipam_test

import (
	"context"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// recorder remembers which keys transactions read and wrote since reset, of how many
// operations, and how many the largest one had.
type recorder struct {
	store.Store
	read, wrote map[string]bool
	ops, most   int
}

func (r *recorder) reset() { r.read, r.wrote, r.ops = map[string]bool{}, map[string]bool{}, 0 }

func (r *recorder) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	return r.Store.Update(ctx, func(tx store.Tx) error {
		t := &recordedTx{Tx: tx, read: map[string]bool{}, wrote: map[string]bool{}}
		err := fn(t)
		r.read, r.wrote, r.ops, r.most = t.read, t.wrote, t.ops, max(r.most, t.ops)
		return err
	})
}

// claims returns the blocks that were claimed.
func (r *recorder) claims() (keys []string) {
	for k := range r.wrote {
		if strings.HasPrefix(k, "ipam/tree/") {
			keys = append(keys, k)
		}
	}
	return keys
}

// filled reports whether a block became full or no longer full.
func (r *recorder) filled() bool {
	for k := range r.wrote {
		if strings.HasPrefix(k, "ipam/spare/") {
			return true
		}
	}
	return false
}

type recordedTx struct {
	store.Tx
	read, wrote map[string]bool
	ops         int
}

func (t *recordedTx) Get(key string) (store.Item, error) {
	t.ops++
	t.read[key] = true
	return t.Tx.Get(key)
}

func (t *recordedTx) Scan(prefix string, limit int) ([]store.Item, error) {
	t.ops++
	items, err := t.Tx.Scan(prefix, limit)
	for _, it := range items {
		t.read[it.Key] = true
	}
	return items, err
}

func (t *recordedTx) Put(key string, value []byte) error {
	t.ops++
	t.wrote[key] = true
	return t.Tx.Put(key, value)
}

func (t *recordedTx) Delete(key string) error {
	t.ops++
	t.wrote[key] = true
	return t.Tx.Delete(key)
}

func (t *recordedTx) DeletePrefix(prefix string) error {
	t.ops++
	t.wrote[prefix] = true
	return t.Tx.DeletePrefix(prefix)
}
