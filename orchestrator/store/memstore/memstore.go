// Package memstore is a store in memory, for tests and for daemons that need
// to remember nothing.
package memstore

import (
	"context"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/internal/feed"
)

// Store is a store in memory. Make it with [New].
type Store struct {
	feed *feed.Feed

	mu     sync.RWMutex
	items  map[string]store.Item // guarded by mu
	keys   []string              // guarded by mu; those of items, sorted
	rev    int64                 // guarded by mu
	closed bool                  // guarded by mu
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{feed: feed.New(0), items: map[string]store.Item{}}
}

// View implements [store.Store].
func (s *Store) View(ctx context.Context, fn func(store.ReadTx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usableLocked(ctx); err != nil {
		return err
	}
	return fn(&tx{s: s})
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return 0, err
	}
	t := &tx{s: s, before: map[string]store.Item{}}
	committed := false
	defer func() {
		if !committed {
			t.rollback()
		}
	}()
	if err := fn(t); err != nil {
		return 0, err
	}
	committed = true
	if events := t.events(); len(events) > 0 {
		s.rev++
		s.feed.Publish(s.rev, events)
	}
	return s.rev, nil
}

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	return s.feed.Watch(ctx, prefix, from)
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.feed.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *Store) usableLocked(ctx context.Context) error {
	if s.closed {
		return os.ErrClosed
	}
	return ctx.Err()
}

// set puts the item, or deletes it when its revision is 0.
func (s *Store) setLocked(it store.Item) {
	i, found := slices.BinarySearch(s.keys, it.Key)
	switch {
	case !it.Exists():
		delete(s.items, it.Key)
		if found {
			s.keys = slices.Delete(s.keys, i, i+1)
		}
		return
	case !found:
		s.keys = slices.Insert(s.keys, i, it.Key)
	}
	s.items[it.Key] = it
}

// tx works on the store in place and remembers what was there before.
type tx struct {
	s      *Store
	before map[string]store.Item
}

func (t *tx) Rev() int64 { return t.s.rev }

func (t *tx) Get(key string) (store.Item, error) {
	it := t.s.items[key]
	it.Key = key
	return it, nil
}

func (t *tx) Scan(prefix string, limit int) ([]store.Item, error) {
	var items []store.Item
	i, _ := slices.BinarySearch(t.s.keys, prefix)
	for _, k := range t.s.keys[i:] {
		if !strings.HasPrefix(k, prefix) || limit > 0 && len(items) == limit {
			break
		}
		items = append(items, t.s.items[k])
	}
	return items, nil
}

func (t *tx) Put(key string, value []byte) error {
	t.set(store.Item{Key: key, Value: slices.Clone(value), Rev: t.s.rev + 1})
	return nil
}

func (t *tx) Delete(key string) error {
	if t.s.items[key].Exists() {
		t.set(store.Item{Key: key})
	}
	return nil
}

func (t *tx) DeletePrefix(prefix string) error {
	items, err := t.Scan(prefix, 0)
	for _, it := range items {
		t.set(store.Item{Key: it.Key})
	}
	return err
}

func (t *tx) set(it store.Item) {
	if _, ok := t.before[it.Key]; !ok {
		old := t.s.items[it.Key]
		old.Key = it.Key
		t.before[it.Key] = old
	}
	t.s.setLocked(it)
}

func (t *tx) rollback() {
	for _, it := range t.before {
		t.s.setLocked(it)
	}
}

// events returns what the transaction changed, in the order of the keys.
func (t *tx) events() []store.Event {
	var events []store.Event
	for k, old := range t.before {
		now := t.s.items[k]
		switch {
		case now.Exists():
			events = append(events, store.Event{Item: now})
		case old.Exists():
			old.Rev = t.s.rev + 1
			events = append(events, store.Event{Item: old, Deleted: true})
		}
	}
	slices.SortFunc(events, func(a, b store.Event) int { return strings.Compare(a.Key, b.Key) })
	return events
}
