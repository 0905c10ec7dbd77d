// Package feed keeps the last changes of a store in memory for those who watch
// it. Watchers pull at their own pace from one shared history, so a slow one
// costs neither memory nor time of others; one that falls out of the history is
// told so.
package feed

import (
	"context"
	"fmt"
	"iter"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// Limit is how many events a Feed keeps at least.
const Limit = 1024

// Feed is a history of changes. It is safe for concurrent use.
type Feed struct {
	mu     sync.Mutex
	events []store.Event // guarded by mu; oldest first; elements never change
	base   int64         // guarded by mu; the history has all events after this revision
	rev    int64         // guarded by mu; the last revision
	wake   chan struct{} // guarded by mu; closed and replaced at each change
	closed bool          // guarded by mu
}

// New returns an empty history that begins after revision rev.
func New(rev int64) *Feed {
	return &Feed{base: rev, rev: rev, wake: make(chan struct{})}
}

// Publish adds the events of one revision, which is greater than all before.
func (f *Feed) Publish(rev int64, events []store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev = rev
	f.events = append(f.events, events...)
	f.trimLocked()
	f.wakeLocked()
}

// trimLocked forgets whole revisions once the history is twice as long as it
// has to be.
func (f *Feed) trimLocked() {
	if len(f.events) <= 2*Limit {
		return
	}
	i := len(f.events) - Limit
	for i > 0 && f.events[i].Rev == f.events[i-1].Rev {
		i--
	}
	if i > 0 {
		f.base = f.events[i-1].Rev
		f.events = slices.Clone(f.events[i:])
	}
}

func (f *Feed) wakeLocked() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// Close ends all watches with [os.ErrClosed].
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.wakeLocked()
	}
}

// Watch implements the method of [store.Store].
func (f *Feed) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	if from <= 0 {
		f.mu.Lock()
		from = f.rev + 1
		f.mu.Unlock()
	}
	return func(yield func(store.Event, error) bool) {
		for next := from; ; {
			events, err := f.wait(ctx, next)
			if err != nil {
				yield(store.Event{}, fmt.Errorf("watch %q from revision %d: %w", prefix, next, err))
				return
			}
			for _, e := range events {
				if strings.HasPrefix(e.Key, prefix) && !yield(e, nil) {
					return
				}
			}
			next = events[len(events)-1].Rev + 1
		}
	}
}

// wait returns all events from revision from on, at least one.
func (f *Feed) wait(ctx context.Context, from int64) ([]store.Event, error) {
	for {
		events, wake, err := f.take(from)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *Feed) take(from int64) ([]store.Event, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, nil, os.ErrClosed
	case from <= f.base:
		return nil, nil, store.ErrCompacted
	}
	i := sort.Search(len(f.events), func(i int) bool { return f.events[i].Rev >= from })
	return slices.Clip(f.events[i:]), f.wake, nil
}
