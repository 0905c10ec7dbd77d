// Package scoped shows a part of a shared store as if it were its user's alone: some
// keys lie under a prefix of the user's own, the others are common to all. One
// transaction may touch both.
package scoped

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// Store is a [store.Store] over a shared one. Make it with [New].
type Store struct {
	shared store.Store
	scope
}

var _ store.Store = (*Store)(nil)

// scope maps keys.
type scope struct {
	home string   // where the user's own keys lie
	own  []string // prefixes of the user's own keys
}

// New returns shared as its user sees it: a key that begins with one of own lies
// under home, which ends with '/', every other key is the same. Two scopes over one
// store don't see each other's own keys. Own prefixes end with '/', and none is home.
func New(shared store.Store, home string, own []string) *Store {
	return &Store{shared: shared, scope: scope{home: home, own: own}}
}

// Shared returns the store beneath.
func (s *Store) Shared() store.Store { return s.shared }

// place returns the key or prefix in the shared store, and whether it is the user's own.
func (s scope) place(key string) (at string, own bool) {
	for _, p := range s.own {
		if strings.HasPrefix(key, p) {
			return s.home + key, true
		}
	}
	return key, false
}

// within is place for a prefix, which must not cover own keys and common ones alike.
func (s scope) within(prefix string) (at string, own bool, err error) {
	for _, p := range s.own {
		if prefix != p && strings.HasPrefix(p, prefix) {
			return "", false, fmt.Errorf("keys of prefix %q lie in two places of the store: %s is the hypervisor's own", prefix, p)
		}
	}
	at, own = s.place(prefix)
	return at, own, nil
}

// seen returns an item as the user names it.
func (s scope) seen(it store.Item, own bool) store.Item {
	if own {
		it.Key = strings.TrimPrefix(it.Key, s.home)
	}
	return it
}

// View implements [store.Store].
func (s *Store) View(ctx context.Context, fn func(store.ReadTx) error) error {
	return s.shared.View(ctx, func(tx store.ReadTx) error { return fn(readTx{tx, s.scope}) })
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	return s.shared.Update(ctx, func(tx store.Tx) error { return fn(writeTx{readTx{tx, s.scope}, tx}) })
}

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	at, own, err := s.within(prefix)
	if err != nil {
		return func(yield func(store.Event, error) bool) { yield(store.Event{}, err) }
	}
	return func(yield func(store.Event, error) bool) {
		for ev, err := range s.shared.Watch(ctx, at, from) {
			ev.Item = s.seen(ev.Item, own)
			if !yield(ev, err) {
				return
			}
		}
	}
}

// Close closes the shared store.
func (s *Store) Close() error { return s.shared.Close() }

type readTx struct {
	store.ReadTx
	scope
}

// Get implements [store.ReadTx].
func (t readTx) Get(key string) (store.Item, error) {
	at, own := t.place(key)
	it, err := t.ReadTx.Get(at)
	return t.seen(it, own), err
}

// Unused implements the method of [store.Unused].
func (t readTx) Unused(key string) (bool, error) {
	at, _ := t.place(key)
	return store.Unused(t.ReadTx, at)
}

// Scan implements [store.ReadTx].
func (t readTx) Scan(prefix string, limit int) ([]store.Item, error) {
	at, own, err := t.within(prefix)
	if err != nil {
		return nil, err
	}
	items, err := t.ReadTx.Scan(at, limit)
	if err != nil || !own {
		return items, err
	}
	mine := make([]store.Item, len(items)) // the shared store's are not to be modified
	for i, it := range items {
		mine[i] = t.seen(it, own)
	}
	return mine, nil
}

type writeTx struct {
	readTx
	tx store.Tx
}

// Put implements [store.Tx].
func (t writeTx) Put(key string, value []byte) error {
	at, _ := t.place(key)
	return t.tx.Put(at, value)
}

// Delete implements [store.Tx].
func (t writeTx) Delete(key string) error {
	at, _ := t.place(key)
	return t.tx.Delete(at)
}

// DeletePrefix implements [store.Tx].
func (t writeTx) DeletePrefix(prefix string) error {
	at, _, err := t.within(prefix)
	if err != nil {
		return err
	}
	return t.tx.DeletePrefix(at)
}
