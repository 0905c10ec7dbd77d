package scoped

import (
	"context"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// Placed returns the store of a single user with its keys where [New] looks for them
// in a shared store, for [store.Copy]. It is to be read only.
func Placed(single store.Store, home string, own []string) store.Store {
	return placed{single, scope{home: home, own: own}}
}

type placed struct {
	store.Store
	scope
}

// View implements [store.Store].
func (p placed) View(ctx context.Context, fn func(store.ReadTx) error) error {
	return p.Store.View(ctx, func(tx store.ReadTx) error { return fn(placedTx{tx, p.scope}) })
}

type placedTx struct {
	store.ReadTx
	scope
}

// Get implements [store.ReadTx].
func (t placedTx) Get(key string) (store.Item, error) {
	items, err := t.Scan(key, 1)
	if err != nil || len(items) == 0 || items[0].Key != key {
		return store.Item{Key: key}, err
	}
	return items[0], nil
}

// Scan implements [store.ReadTx]. It reads all of the store.
func (t placedTx) Scan(prefix string, limit int) ([]store.Item, error) {
	all, err := t.ReadTx.Scan("", 0)
	var items []store.Item
	for _, it := range all {
		if it.Key, _ = t.place(it.Key); strings.HasPrefix(it.Key, prefix) {
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) })
	if limit > 0 && len(items) > limit {
		items = items[:limit]
	}
	return items, err
}
