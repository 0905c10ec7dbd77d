// Package storetest has the tests that every store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
)

var errAbort = errors.New("abort")

// Forgetter is a store that keeps its history until it is told to forget it. Others
// forget by themselves.
type Forgetter interface {
	// Forget forgets the events before the present revision.
	Forget(t *testing.T)
}

// Run tests the stores that open returns; each is empty, closed by Run, and written
// to by nobody else.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	tests := []struct {
		name string
		fn   func(t *testing.T, s store.Store)
	}{
		{"get, put, delete", testPut},
		{"scan", testScan},
		{"rollback", testRollback},
		{"panic", testPanic},
		{"revisions", testRevisions},
		{"compare and swap", testSwap},
		{"values are copies", testCopies},
		{"context", testContext},
		{"concurrent updates", testConcurrent},
		{"delete a prefix", testDeletePrefix},
		{"no phantoms", testPhantoms},
		{"first free", testFirstFree},
		{"watch", testWatch},
		{"watch resumes", testWatchResumes},
		{"watch from now", testWatchFromNow},
		{"watch ends in its loop", testWatchEnds},
		{"watch is compacted", testWatchCompacted},
		{"watchers do not block", testSlowWatcher},
		{"close", testClose},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			s := fromZero(t, open(t))
			defer s.Close()
			c.fn(t, s)
		})
	}
}

func update(t *testing.T, s store.Store, fn func(tx store.Tx) error) int64 {
	t.Helper()
	rev, err := s.Update(t.Context(), fn)
	require.NoError(t, err)
	return rev
}

func put(t *testing.T, s store.Store, keys ...string) int64 {
	t.Helper()
	return update(t, s, func(tx store.Tx) error {
		for _, k := range keys {
			if err := tx.Put(k, []byte("value of "+k)); err != nil {
				return err
			}
		}
		return nil
	})
}

// dump prints all items as "KEY=VALUE@REV", or an error.
func dump(t *testing.T, s store.Store, prefix string, limit int) string {
	t.Helper()
	var lines []string
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan(prefix, limit)
		for _, it := range items {
			lines = append(lines, fmt.Sprintf("%s=%s@%d", it.Key, it.Value, it.Rev))
		}
		return err
	}))
	return strings.Join(lines, " ")
}

func testPut(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		it, err := tx.Get("a")
		assert.False(t, it.Exists())
		assert.Equal(t, "a", it.Key)
		return errors.Join(err, tx.Put("a", []byte("1")), tx.Put("b", nil), tx.Put("a", []byte("2")))
	})
	assert.Equal(t, "a=2@1 b=@1", dump(t, s, "", 0))
	update(t, s, func(tx store.Tx) error {
		err := errors.Join(tx.Delete("a"), tx.Delete("zz"), tx.Put("c", []byte("3")))
		it, gerr := tx.Get("a")
		assert.False(t, it.Exists(), "a transaction reads its own deletes")
		it, gerr2 := tx.Get("c")
		assert.Equal(t, "3", string(it.Value), "a transaction reads its own writes")
		return errors.Join(err, gerr, gerr2)
	})
	assert.Equal(t, "b=@1 c=3@2", dump(t, s, "", 0))
}

func testScan(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a/2", "a/1", "a/10", "a", "b/1", "a0")
	assert.Equal(t, "a/1=value of a/1@1 a/10=value of a/10@1 a/2=value of a/2@1", dump(t, s, "a/", 0))
	assert.Equal(t, "a/1=value of a/1@1", dump(t, s, "a/", 1))
	assert.Empty(t, dump(t, s, "c", 0))
	update(t, s, func(tx store.Tx) error {
		if err := errors.Join(tx.Put("a/0", nil), tx.Delete("a/1")); err != nil {
			return err
		}
		items, err := tx.Scan("a/", 2)
		assert.Len(t, items, 2)
		assert.Equal(t, "a/0", items[0].Key)
		assert.Equal(t, "a/10", items[1].Key)
		return err
	})
	update(t, s, func(tx store.Tx) error { return tx.DeletePrefix("a/") })
	assert.Equal(t, "a=value of a@1 a0=value of a0@1 b/1=value of b/1@1", dump(t, s, "", 0))
}

func testRollback(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a", "b")
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.Put("a", []byte("x")), tx.Delete("b"), tx.Put("c", nil), errAbort)
	})
	require.ErrorIs(t, err, errAbort)
	assert.Equal(t, "a=value of a@1 b=value of b@1", dump(t, s, "", 0))
	assert.Equal(t, int64(2), put(t, s, "d"), "what was rolled back has no revision")
}

func testPanic(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a")
	assert.Panics(t, func() {
		_, _ = s.Update(t.Context(), func(tx store.Tx) error {
			_ = tx.Delete("a")
			panic("out")
		})
	})
	assert.Equal(t, int64(2), put(t, s, "b"), "the store stays usable")
	assert.Equal(t, "a=value of a@1 b=value of b@2", dump(t, s, "", 0))
}

func testRevisions(t *testing.T, s store.Store) {
	t.Helper()
	assert.Equal(t, int64(1), put(t, s, "a"))
	assert.Equal(t, int64(2), put(t, s, "a", "b"))
	nothing := update(t, s, func(tx store.Tx) error { _, err := tx.Get("a"); return err })
	assert.Equal(t, int64(2), nothing, "an update that writes nothing makes no revision")
	nothing = update(t, s, func(tx store.Tx) error { return tx.Delete("zz") })
	assert.Equal(t, int64(2), nothing)
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		assert.Equal(t, int64(2), tx.Rev())
		return nil
	}))
}

func testSwap(t *testing.T, s store.Store) {
	t.Helper()
	rev, err := store.CompareAndSwap(t.Context(), s, "a", 0, []byte("1"))
	require.NoError(t, err)
	_, err = store.CompareAndSwap(t.Context(), s, "a", 0, []byte("2"))
	require.ErrorIs(t, err, store.ErrChanged)
	put(t, s, "b")
	_, err = store.CompareAndSwap(t.Context(), s, "a", rev, []byte("3"))
	require.NoError(t, err, "another key's revision does not matter")
	_, err = store.CompareAndSwap(t.Context(), s, "a", rev, []byte("4"))
	require.EqualError(t, err, "swap a of revision 1: it has 3: changed meanwhile")
	assert.Equal(t, "a=3@3", dump(t, s, "a", 0))
}

func testCopies(t *testing.T, s store.Store) {
	t.Helper()
	b := []byte("one")
	update(t, s, func(tx store.Tx) error { return tx.Put("a", b) })
	copy(b, "two")
	var it store.Item
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) (err error) { it, err = tx.Get("a"); return err }))
	put(t, s, "a")
	assert.Equal(t, "one", string(it.Value))
}

func testContext(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Update(ctx, func(tx store.Tx) error { return tx.Put("a", nil) })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.View(ctx, func(store.ReadTx) error { return nil }), context.Canceled)
	assert.Empty(t, dump(t, s, "", 0))
}

func testConcurrent(t *testing.T, s store.Store) {
	t.Helper()
	const workers, each = 8, 20
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				_, err := s.Update(t.Context(), func(tx store.Tx) error {
					it, err := tx.Get("n")
					return errors.Join(err, tx.Put("n", append(it.Value, '.')))
				})
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, fmt.Sprintf("n=%s@%d", strings.Repeat(".", workers*each), workers*each), dump(t, s, "n", 0))
}

// collect reads n events of a watch and prints them.
func collect(t *testing.T, s store.Store, prefix string, from int64, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var lines []string
	for ev, err := range s.Watch(ctx, prefix, from) {
		if err != nil {
			lines = append(lines, err.Error())
			break
		}
		sign := "+"
		if ev.Deleted {
			sign = "-"
		}
		lines = append(lines, fmt.Sprintf("%s%s=%s@%d", sign, ev.Key, ev.Value, ev.Rev))
		if len(lines) == n {
			break
		}
	}
	return strings.Join(lines, " ")
}

func testWatch(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.Put("a/2", []byte("x")), tx.Put("a/1", []byte("y")), tx.Put("b", nil))
	})
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.Put("a/2", []byte("1")), tx.Put("a/2", []byte("2")), tx.Delete("a/1"), tx.Put("a/3", nil), tx.Delete("a/3"))
	})
	_, err := s.Update(t.Context(), func(tx store.Tx) error { return errors.Join(tx.Put("a/9", nil), errAbort) })
	require.ErrorIs(t, err, errAbort)
	put(t, s, "a/4")
	assert.Equal(t, "+a/1=y@1 +a/2=x@1 -a/1=y@2 +a/2=2@2 +a/4=value of a/4@3", collect(t, s, "a/", 1, 5),
		"one event for each key and commit, none of what was rolled back")
}

func testWatchResumes(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a")
	put(t, s, "b")
	rev := put(t, s, "c")
	assert.Equal(t, "+b=value of b@2 +c=value of c@3", collect(t, s, "", 2, 2))
	done := make(chan string, 1)
	go func() { done <- collect(t, s, "", rev+1, 1) }()
	put(t, s, "d")
	assert.Equal(t, "+d=value of d@4", <-done)
}

func testWatchFromNow(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a")
	watch := s.Watch(t.Context(), "", 0)
	put(t, s, "b")
	for ev, err := range watch {
		require.NoError(t, err)
		assert.Equal(t, "b", ev.Key, "the call of Watch is what counts, not the first read")
		break
	}
}

// testWatchEnds ends a watch's context in the body of the loop, which then leaves
// it, or goes on.
func testWatchEnds(t *testing.T, s store.Store) {
	t.Helper()
	rev := put(t, s, "a")
	for _, leave := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		var errs []error
		for _, err := range s.Watch(ctx, "a", rev) {
			errs = append(errs, err)
			cancel()
			if leave {
				break
			}
		}
		cancel()
		if require.NoError(t, errs[0]); !leave {
			require.Len(t, errs, 2)
			require.ErrorIs(t, errs[1], context.Canceled)
		}
	}
}

func testWatchCompacted(t *testing.T, s store.Store) {
	t.Helper()
	first := put(t, s, "first")
	var last int64
	for i := range 45 { // more than a feed keeps
		last = put(t, s, many(fmt.Sprintf("k%02d/", i), 100)...)
	}
	from := first + 1
	f, tells := s.(*relative).Store.(Forgetter)
	if tells {
		put(t, s, "gone")
		last = update(t, s, func(tx store.Tx) error { return tx.Delete("gone") })
		f.Forget(t)
		put(t, s, "after")
		from = last - 1
	}
	var got error
	for _, err := range s.Watch(t.Context(), "", first) {
		got = err
	}
	require.ErrorIs(t, got, store.ErrCompacted)
	ev, err := next(t, s, from)
	for ; errors.Is(err, store.ErrCompacted) && from <= last; ev, err = next(t, s, from) {
		from++
	}
	require.NoError(t, err)
	assert.Equal(t, from, ev.Rev)
	if tells {
		assert.Equal(t, "after", ev.Key, "what is not forgotten begins after the last deletion")
	} else {
		assert.Regexp(t, "^k../000$", ev.Key, "a revision is forgotten as a whole or not at all")
	}
	rev := put(t, s, "last")
	assert.Equal(t, fmt.Sprintf("+last=value of last@%d", rev), collect(t, s, "last", rev, 1))
}

// next returns the first event of a watch.
func next(t *testing.T, s store.Store, from int64) (store.Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ev, err := range s.Watch(ctx, "", from) {
		return ev, err
	}
	return store.Event{}, errors.New("the watch ended without an error")
}

// many returns n keys that begin with prefix.
func many(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return keys
}

func testSlowWatcher(t *testing.T, s store.Store) {
	t.Helper()
	rev := put(t, s, "a")
	for ev, err := range s.Watch(t.Context(), "", rev) {
		require.NoError(t, err)
		if ev.Key == "z" {
			break
		}
		if ev.Key == "a" { // while this watcher reads nothing, the writers go on
			for range 100 {
				put(t, s, "b")
			}
			put(t, s, "z")
		}
	}
}

func testClose(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, "a")
	ended := make(chan error, 1)
	go func() {
		for _, err := range s.Watch(context.Background(), "", 1) {
			if err != nil {
				ended <- err
			}
		}
	}()
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-ended, os.ErrClosed)
	_, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("b", nil) })
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, s.View(t.Context(), func(store.ReadTx) error { return nil }), os.ErrClosed)
}
