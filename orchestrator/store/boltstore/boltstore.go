// Package boltstore is a store in one file, by bbolt. A commit is on disk when
// it returns. One process at a time has the file open.
package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/internal/feed"
)

// Store is a store in a file. Make it with [Open].
type Store struct {
	db   *bolt.DB
	path string
	feed *feed.Feed
	// writer has room for one: who has put into it may write, and publishes the
	// events of its commit before it takes out, so that they stay in order.
	writer chan struct{}
}

var _ store.Store = (*Store)(nil)

// View implements [store.Store].
func (s *Store) View(ctx context.Context, fn func(store.ReadTx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.explain(s.db.View(func(btx *bolt.Tx) error { return fn(newTx(btx)) }))
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	select {
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var t *tx
	var events []store.Event
	err := s.db.Update(func(btx *bolt.Tx) error {
		t = newTx(btx)
		if err := fn(t); err != nil {
			return err
		}
		if events = t.events(); len(events) == 0 {
			return errNothing
		}
		return putRev(btx.Bucket(metaBucket), t.rev+1)
	})
	switch {
	case errors.Is(err, errNothing):
		return t.rev, nil
	case err != nil:
		return 0, s.explain(err)
	}
	s.feed.Publish(t.rev+1, events)
	return t.rev + 1, nil
}

// errNothing rolls back a transaction that wrote nothing: that spares a sync.
var errNothing = errors.New("nothing was written")

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	return s.feed.Watch(ctx, prefix, from)
}

// Close implements [store.Store]. It waits for transactions that are running.
func (s *Store) Close() error {
	s.feed.Close()
	return s.db.Close()
}

func (s *Store) explain(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("store %s: %w", s.path, os.ErrClosed)
	}
	return err
}

// tx is a transaction of bbolt that remembers what was there before its writes.
type tx struct {
	data   *bolt.Bucket
	rev    int64
	before map[string]store.Item
}

func newTx(btx *bolt.Tx) *tx {
	rev := binary.BigEndian.Uint64(btx.Bucket(metaBucket).Get(revisionKey))
	return &tx{
		data: btx.Bucket(dataBucket), rev: int64(rev), //nolint:gosec // it was put as an int64
		before: map[string]store.Item{},
	}
}

func (t *tx) Rev() int64 { return t.rev }

func (t *tx) Get(key string) (store.Item, error) {
	v := t.data.Get([]byte(key))
	if v == nil {
		return store.Item{Key: key}, nil
	}
	return decode(key, v)
}

func (t *tx) Scan(prefix string, limit int) ([]store.Item, error) {
	var items []store.Item
	c := t.data.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
		if limit > 0 && len(items) == limit {
			break
		}
		it, err := decode(string(k), v)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

func (t *tx) Put(key string, value []byte) error {
	if err := t.remember(key); err != nil {
		return err
	}
	return t.data.Put([]byte(key), encode(t.rev+1, value))
}

func (t *tx) Delete(key string) error {
	if err := t.remember(key); err != nil {
		return err
	}
	return t.data.Delete([]byte(key))
}

func (t *tx) DeletePrefix(prefix string) error {
	items, err := t.Scan(prefix, 0)
	if err != nil {
		return err
	}
	for _, it := range items {
		if err := t.Delete(it.Key); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) remember(key string) error {
	if _, ok := t.before[key]; ok {
		return nil
	}
	it, err := t.Get(key)
	t.before[key] = it
	return err
}

// events returns what the transaction changed, in the order of the keys.
func (t *tx) events() []store.Event {
	var events []store.Event
	for k, old := range t.before {
		now, _ := t.Get(k)
		switch {
		case now.Exists():
			events = append(events, store.Event{Item: now})
		case old.Exists():
			old.Rev = t.rev + 1
			events = append(events, store.Event{Item: old, Deleted: true})
		}
	}
	slices.SortFunc(events, func(a, b store.Event) int { return strings.Compare(a.Key, b.Key) })
	return events
}

func putRev(meta *bolt.Bucket, rev int64) error {
	return meta.Put(revisionKey, binary.BigEndian.AppendUint64(nil, uint64(rev))) //nolint:gosec // revisions are positive
}

func encode(rev int64, value []byte) []byte {
	b := make([]byte, 0, 8+len(value))
	return append(binary.BigEndian.AppendUint64(b, uint64(rev)), value...) //nolint:gosec // revisions are positive
}

// decode copies what bbolt lends until the end of the transaction.
func decode(key string, v []byte) (store.Item, error) {
	if len(v) < 8 {
		return store.Item{}, fmt.Errorf("%w: key %q has no revision", store.ErrDamaged, key)
	}
	rev := int64(binary.BigEndian.Uint64(v)) //nolint:gosec // it was put as an int64
	return store.Item{Key: key, Value: slices.Clone(v[8:]), Rev: rev}, nil
}
