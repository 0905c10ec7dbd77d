package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
)

// TestRemembered: what a store remembers and another has changed is never what an
// update decides by in the end, and costs two requests more, however much it reads.
func TestRemembered(t *testing.T) {
	r := newRig(t)
	keys := []string{"a", "b", "c", "d", "q/1"}
	read := func(tx store.Tx) (string, error) {
		var s strings.Builder
		for _, k := range keys[:4] {
			it, err := tx.Get(k)
			if err != nil {
				return "", err
			}
			s.Write(it.Value)
		}
		items, err := tx.Scan("q/", 1)
		for _, it := range items {
			s.Write(it.Value)
		}
		return s.String(), err
	}
	errSeen := errors.New("seen")
	var seen string
	cases := []struct {
		name     string
		requests int // with what is remembered, and one more for the commit
		fn       func(tx store.Tx) error
		err      error
	}{
		{"put", 1, func(tx store.Tx) error { return tx.Put("z", nil) }, nil},
		{"put what was read", 1, func(tx store.Tx) error { return tx.Put("a", []byte("1")) }, nil},
		{"no write", 1, func(store.Tx) error { return nil }, nil},
		{"deletes nothing", 1, func(tx store.Tx) error { return tx.Delete("nothing") }, nil},
		{"error", 1, func(store.Tx) error { return errSeen }, errSeen},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			fn := func(tx store.Tx) (err error) {
				if seen, err = read(tx); err != nil {
					return err
				}
				return tt.fn(tx)
			}
			for i, k := range keys {
				for _, k := range keys {
					put(t, r.other, k, "1")
				}
				_, err := r.s.Update(t.Context(), fn) // remembers
				require.ErrorIs(t, err, tt.err)
				assert.Equal(t, "11111", seen)
				put(t, r.other, k, "3")
				_, err = r.s.Update(t.Context(), fn)
				require.ErrorIs(t, err, tt.err)
				assert.Equal(t, "11111"[:i]+"3"+"11111"[i+1:], seen)
			}
			put(t, r.s, "a", "1")
			_, err := r.s.Update(t.Context(), fn)
			require.ErrorIs(t, err, tt.err)
			before := r.p.requests()
			_, err = r.s.Update(t.Context(), fn)
			require.ErrorIs(t, err, tt.err)
			assert.Equal(t, tt.requests, r.p.requests()-before, "when all is as it is remembered")
			put(t, r.other, "c", "4")
			before = r.p.requests()
			_, err = r.s.Update(t.Context(), fn)
			require.ErrorIs(t, err, tt.err)
			assert.LessOrEqual(t, r.p.requests()-before, 3)
			assert.Contains(t, seen, "4")
		})
	}
}

// TestUnused: a key that is taken for unused and isn't is found to be so.
func TestUnused(t *testing.T) {
	r := newRig(t)
	put(t, r.other, "used", "1")
	var unused []bool
	fn := func(keys ...string) func(tx store.Tx) error {
		return func(tx store.Tx) error {
			unused = nil
			for _, k := range keys {
				u, err := store.Unused(tx, k)
				if err != nil {
					return err
				}
				unused = append(unused, u)
			}
			return tx.Put("a", nil)
		}
	}
	put(t, r.s, "b", "1")
	before := r.p.requests()
	_, err := r.s.Update(t.Context(), fn("x", "y", "z"))
	require.NoError(t, err)
	assert.Equal(t, []bool{true, true, true}, unused)
	assert.Equal(t, 1, r.p.requests()-before)
	_, err = r.s.Update(t.Context(), fn("x", "used", "b"))
	require.NoError(t, err)
	assert.Equal(t, []bool{true, false, false}, unused)
	require.NoError(t, r.s.View(t.Context(), func(tx store.ReadTx) error {
		u, err := store.Unused(tx, "used")
		assert.False(t, u)
		return err
	}))
	_, err = r.s.Update(t.Context(), func(tx store.Tx) error {
		require.NoError(t, errors.Join(tx.Put("mine", nil), tx.DeletePrefix("us")))
		mine, err := store.Unused(tx, "mine")
		assert.False(t, mine)
		used, uerr := store.Unused(tx, "used")
		assert.True(t, used, "it is deleted")
		return errors.Join(err, uerr)
	})
	require.NoError(t, err)
}

// TestRevisionOfUpdate: a transaction that asks for its revision reads at that.
func TestRevisionOfUpdate(t *testing.T) {
	r := newRig(t)
	put(t, r.s, "a", "1")
	rev := put(t, r.other, "a", "2")
	_, err := r.s.Update(t.Context(), func(tx store.Tx) error {
		it, err := tx.Get("a")
		if tx.Rev() != rev || string(it.Value) != "2" {
			return fmt.Errorf("a is %q at revision %d, want that of %d", it.Value, tx.Rev(), rev)
		}
		return err
	})
	require.NoError(t, err)
}

// TestBehindRange: a key that a scan has read but not returned, for it came behind the
// last one, is checked all the same when it is read later.
func TestBehindRange(t *testing.T) {
	r := newRig(t)
	put(t, r.s, "p/1", "1")
	put(t, r.s, "p/2", "1")
	runs := 0
	_, err := r.s.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.Put("x", nil); err != nil { // so that one more than is wanted is read
			return err
		}
		if _, err := tx.Scan("p/", 1); err != nil {
			return err
		}
		it, err := tx.Get("p/2")
		if err != nil {
			return err
		}
		if runs++; runs == 1 {
			put(t, r.other, "p/2", "2")
		}
		return tx.Put("copy", it.Value)
	})
	require.NoError(t, err)
	assert.Equal(t, "2", string(get(t, r.s, "copy").Value))
}

// TestTransfers has two stores, which remember what the other changes, move units
// between accounts, of which some are read alone and some by scans: none is lost.
func TestTransfers(t *testing.T) {
	r := newRig(t)
	const accounts, units = 6, 10
	for i := range accounts {
		put(t, r.s, account(i), strconv.Itoa(units))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		s := []*etcdstore.Store{r.s, r.other}[w%2]
		wg.Go(func() {
			for i := range 30 {
				assert.NoError(t, transfer(t.Context(), s, (w+i)%accounts, (w+3*i+1)%accounts))
			}
		})
	}
	wg.Wait()
	sum := 0
	require.NoError(t, r.s.View(t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan("account/", 0)
		for _, it := range items {
			n, cerr := strconv.Atoi(string(it.Value))
			require.NoError(t, cerr)
			assert.GreaterOrEqual(t, n, 0)
			sum += n
		}
		return err
	}))
	assert.Equal(t, accounts*units, sum)
}

func account(i int) string { return fmt.Sprintf("account/%d/balance", i) }

// transfer moves one unit, if there is one.
func transfer(ctx context.Context, s store.Store, from, to int) error {
	if from == to {
		return nil
	}
	_, err := s.Update(ctx, func(tx store.Tx) error {
		rich, err := tx.Get(account(from))
		if err != nil {
			return err
		}
		poor, err := tx.Scan(account(to), 1)
		if err != nil {
			return err
		}
		a, aerr := strconv.Atoi(string(rich.Value))
		b, berr := strconv.Atoi(string(poor[0].Value))
		if err := errors.Join(aerr, berr); err != nil || a == 0 {
			return err
		}
		return errors.Join(tx.Put(account(from), []byte(strconv.Itoa(a-1))), tx.Put(account(to), []byte(strconv.Itoa(b+1))))
	})
	return err
}

// TestMixed: a transaction that finds a key as it is remembered and then as it is now
// doesn't commit.
func TestMixed(t *testing.T) {
	r := newRig(t)
	put(t, r.s, "q/1", "1")
	put(t, r.other, "q/1", "2")
	_, err := r.s.Update(t.Context(), func(tx store.Tx) error {
		alone, err := tx.Get("q/1")
		if err != nil {
			return err
		}
		items, err := tx.Scan("q/", 0)
		if err != nil {
			return err
		}
		return tx.Put("both", slices.Concat(alone.Value, items[0].Value))
	})
	require.NoError(t, err)
	assert.Equal(t, "22", string(get(t, r.s, "both").Value))
}
