package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// Bounds of one transaction of a [Copy]. etcd takes 128 operations and 1.5 MiB.
const (
	copyKeys  = 100
	copyBytes = 512 << 10
)

// Copy copies the keys that begin with one of the prefixes, or all when none is
// given, from one state of a store into an empty one, reads them back and returns
// their number. Nobody else may write to the target meanwhile. The revisions of
// items are not kept. When the target has any key, the error is [ErrNotEmpty] and
// nothing is written; after any other error, the target may have a part of the keys.
func Copy(ctx context.Context, from, to Store, prefixes ...string) (int, error) {
	there, err := scan(ctx, to, 1, "")
	if err != nil {
		return 0, fmt.Errorf("copy store: look at the target: %w", err)
	}
	if len(there) > 0 {
		return 0, fmt.Errorf("copy store: the target has %q: %w; empty it, or name another", there[0].Key, ErrNotEmpty)
	}
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	items, err := scan(ctx, from, 0, prefixes...)
	if err != nil {
		return 0, fmt.Errorf("copy store: read the source: %w", err)
	}
	for rest := items; len(rest) > 0; {
		n := batch(rest)
		if err := putAll(ctx, to, rest[:n]); err != nil {
			return 0, fmt.Errorf("copy store: write %d keys from %q on: %w; empty the target before it is tried again", n, rest[0].Key, err)
		}
		rest = rest[n:]
	}
	got, err := scan(ctx, to, 0, "")
	if err != nil {
		return 0, fmt.Errorf("copy store: read the target: %w", err)
	}
	same := func(a, b Item) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }
	if !slices.EqualFunc(items, got, same) {
		return 0, fmt.Errorf("copy store: the target has %d keys, and not the %d of the source: %w; let nobody else write to it",
			len(got), len(items), ErrChanged)
	}
	return len(items), nil
}

// scan returns the items of one state, in the order of their keys, each once.
func scan(ctx context.Context, s Store, limit int, prefixes ...string) (items []Item, err error) {
	err = s.View(ctx, func(tx ReadTx) error {
		items = nil
		for _, p := range prefixes {
			some, err := tx.Scan(p, limit)
			if err != nil {
				return err
			}
			items = append(items, some...)
		}
		return nil
	})
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(items, func(a, b Item) bool { return a.Key == b.Key }), err
}

// batch is how many of the items, at least one, fit into a transaction.
func batch(items []Item) int {
	size := 0
	for i, it := range items {
		size += len(it.Key) + len(it.Value)
		if i > 0 && (i == copyKeys || size > copyBytes) {
			return i
		}
	}
	return len(items)
}

func putAll(ctx context.Context, s Store, items []Item) error {
	_, err := s.Update(ctx, func(tx Tx) error {
		for _, it := range items {
			if err := tx.Put(it.Key, it.Value); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
