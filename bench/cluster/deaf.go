package main

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
)

// deaf is a store whose user doesn't learn of endpoints as a whole.
type deaf struct {
	store.Store
	tape atomic.Pointer[tape] // nil: nothing is recorded
}

// View implements [store.Store].
func (s *deaf) View(ctx context.Context, fn func(store.ReadTx) error) error {
	return s.Store.View(ctx, func(tx store.ReadTx) error { return fn(deafTx{tx}) })
}

type deafTx struct{ store.ReadTx }

// Scan implements [store.ReadTx].
func (t deafTx) Scan(prefix string, limit int) ([]store.Item, error) {
	if prefix == fabric.EndpointPrefix {
		return nil, nil
	}
	return t.ReadTx.Scan(prefix, limit)
}

// Watch implements [store.Store].
func (s *deaf) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	if prefix != fabric.EndpointPrefix {
		return s.Store.Watch(ctx, prefix, from)
	}
	return func(yield func(store.Event, error) bool) {
		<-ctx.Done()
		yield(store.Event{}, ctx.Err())
	}
}

// Update implements [store.Store].
func (s *deaf) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	t := s.tape.Load()
	if t == nil {
		return s.Store.Update(ctx, fn)
	}
	var r *recordedTx
	rev, err := s.Store.Update(ctx, func(tx store.Tx) error {
		r = &recordedTx{Tx: tx, reads: map[string]bool{}, writes: map[string][]byte{}}
		return fn(r)
	})
	if err == nil && len(r.writes) > 0 {
		*t = append(*t, r)
	}
	return rev, err
}

// tape has the transactions that were committed.
type tape []*recordedTx

// record returns the transactions of fn, which makes them one after the other.
func (s *deaf) record(fn func() error) (tape, error) {
	var t tape
	s.tape.Store(&t)
	defer s.tape.Store(nil)
	return t, fn()
}

// recordedTx notes what a transaction reads and writes.
type recordedTx struct {
	store.Tx
	reads  map[string]bool   // whether it is a prefix
	writes map[string][]byte // nil: it is deleted
}

// Get implements [store.Tx].
func (t *recordedTx) Get(key string) (store.Item, error) {
	if _, own := t.writes[key]; !own {
		t.reads[key] = false
	}
	return t.Tx.Get(key)
}

// Scan implements [store.Tx].
func (t *recordedTx) Scan(prefix string, limit int) ([]store.Item, error) {
	t.reads[prefix] = true
	return t.Tx.Scan(prefix, limit)
}

// Put implements [store.Tx].
func (t *recordedTx) Put(key string, value []byte) error {
	t.writes[key] = slices.Clone(value)
	return t.Tx.Put(key, value)
}

// Delete implements [store.Tx].
func (t *recordedTx) Delete(key string) error {
	t.writes[key] = nil
	return t.Tx.Delete(key)
}

// step is a bare transaction: its conditions and writes.
type step struct {
	absent, present []string // keys that are not, or are there
	ranges          []string // prefixes of keys that are as they were
	puts            map[string]string
	deletes         []string
}

// steps returns the bare transactions that are as the recorded ones, if known are the
// keys that those before have put.
func (t tape) steps(known map[string]bool) []step {
	var list []step
	for _, r := range t {
		s := step{puts: map[string]string{}}
		for _, k := range slices.Sorted(maps.Keys(r.reads)) {
			switch {
			case r.reads[k]:
				s.ranges = append(s.ranges, k)
			case known[k]:
				s.present = append(s.present, k)
			default:
				s.absent = append(s.absent, k)
			}
		}
		for k, v := range r.writes {
			if v == nil {
				s.deletes = append(s.deletes, k)
				delete(known, k)
				continue
			}
			s.puts[k], known[k] = string(v), true
		}
		list = append(list, s)
	}
	return list
}
