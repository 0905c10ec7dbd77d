package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// testDeletePrefix mixes deletions of a prefix with other writes below it.
func testDeletePrefix(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, many("a/", 100)...)
	put(t, s, many("a/b/", 100)...)
	put(t, s, "a", "b/1", "a0")
	update(t, s, func(tx store.Tx) error {
		err := errors.Join(
			tx.Put("a/before", nil), tx.Delete("a/001"),
			tx.DeletePrefix("a/b/"), tx.DeletePrefix("a/"), tx.DeletePrefix("a/b/0"),
			tx.Put("a/b/003", []byte("x")), tx.Put("a/z", nil), tx.Put("a/zz", nil), tx.Delete("a/zz"), tx.Delete("a/004"),
		)
		items, serr := tx.Scan("a/", 0)
		assert.Len(t, items, 2)
		first, serr2 := tx.Scan("a/b", 1)
		assert.Len(t, first, 1)
		it, gerr := tx.Get("a/005")
		assert.False(t, it.Exists(), "it has the deleted prefix")
		return errors.Join(err, serr, serr2, gerr)
	})
	assert.Equal(t, "a=value of a@3 a/b/003=x@4 a/z=@4 a0=value of a0@3 b/1=value of b/1@3", dump(t, s, "", 0))
	assert.Equal(t, int64(4), update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.DeletePrefix("c"), tx.Delete("d"))
	}), "that deletes nothing")
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.DeletePrefix("c"), tx.DeletePrefix("a/"), tx.Delete("d"))
	})
	assert.Equal(t, "a=value of a@3 a0=value of a0@3 b/1=value of b/1@3", dump(t, s, "", 0))
}

// testPhantoms has writers that each put a key when a scan finds one key beside
// those that stay, and delete one when it finds two. So there are one or two at any
// time, if nobody overlooks what another has put or deleted meanwhile.
func testPhantoms(t *testing.T, s store.Store) {
	t.Helper()
	for _, stay := range []int{2, 60} {
		prefix := fmt.Sprint(stay, "/")
		put(t, s, append(many(prefix+"stay/", stay), prefix+"come/first")...)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 15 {
					_, err := s.Update(t.Context(), func(tx store.Tx) error {
						items, err := tx.Scan(prefix, 0)
						if err != nil {
							return err
						}
						switch come := items[:len(items)-stay]; len(come) {
						case 1:
							return tx.Put(fmt.Sprintf("%scome/%d/%d", prefix, w, i), nil)
						case 2:
							return tx.Delete(come[w%2].Key)
						default:
							return fmt.Errorf("%d keys beside those that stay", len(come))
						}
					})
					assert.NoError(t, err)
				}
			})
		}
		wg.Wait()
	}
}

// testFirstFree has workers take the first of a queue, and put it back at its end.
func testFirstFree(t *testing.T, s store.Store) {
	t.Helper()
	const workers, each = 4, 10
	put(t, s, many("free/", workers*each)...)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				_, err := s.Update(t.Context(), func(tx store.Tx) error {
					items, err := tx.Scan("free/", 1)
					if err != nil || len(items) == 0 {
						return errors.Join(err, errors.New("none is free"))
					}
					return errors.Join(tx.Delete(items[0].Key), tx.Put(fmt.Sprintf("taken/%d/%d", w, i), []byte(items[0].Key)))
				})
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	wg.Wait()
	taken := map[string]bool{}
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("taken/", 0)
		for _, it := range items {
			taken[string(it.Value)] = true
		}
		return err
	}))
	assert.Len(t, taken, workers*each, "each was given once")
	assert.Empty(t, dump(t, s, "free/", 0))
}
