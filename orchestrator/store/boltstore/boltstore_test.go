package boltstore_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/orchestrator/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return open(t, filepath.Join(t.TempDir(), "db"))
	})
}

func open(t *testing.T, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func put(t *testing.T, s store.Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(key, []byte(value)) })
	require.NoError(t, err)
	return rev
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	put(t, s, "a", "1")
	rev := put(t, s, "b", "2")
	require.NoError(t, s.Close())
	s = open(t, path)
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) error {
		it, err := tx.Get("b")
		assert.Equal(t, store.Item{Key: "b", Value: []byte("2"), Rev: rev}, it)
		assert.Equal(t, rev, tx.Rev())
		return err
	}))
	var got error
	for _, err := range s.Watch(t.Context(), "", rev) {
		got = err
	}
	require.ErrorIs(t, got, store.ErrCompacted, "the events before are not in the file")
	watch := s.Watch(t.Context(), "", rev+1)
	assert.Equal(t, rev+1, put(t, s, "c", "3"))
	for ev, err := range watch {
		require.NoError(t, err)
		assert.Equal(t, "c", ev.Key)
		break
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open(t, path)
	st, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), st.Mode().Perm())
}

func TestOpenRefuses(t *testing.T) {
	cases := []struct {
		name string
		prep func(t *testing.T, path string)
		is   error
		want string
	}{
		{
			"locked", func(t *testing.T, path string) { t.Helper(); open(t, path) }, store.ErrLocked,
			"open store PATH: another brfused has it open; stop that one, or give this one a file of its own: in use by another process",
		},
		{
			"a folder", func(t *testing.T, path string) { t.Helper(); require.NoError(t, os.Mkdir(path, 0o700)) }, nil,
			"open store PATH: open PATH: is a directory",
		},
		{
			"not a database", func(t *testing.T, path string) {
				t.Helper()
				require.NoError(t, os.WriteFile(path, make([]byte, 65536), 0o600))
			}, store.ErrDamaged,
			"open store PATH: damaged: invalid database; restore it from a copy, or move the file away to start empty",
		},
		{
			"a small file", func(t *testing.T, path string) {
				t.Helper()
				require.NoError(t, os.WriteFile(path, make([]byte, 5000), 0o600))
			}, store.ErrDamaged,
			"open store PATH: damaged: file size too small 5000; restore it from a copy, or move the file away to start empty",
		},
		{
			"newer schema", func(t *testing.T, path string) {
				t.Helper()
				tamper(t, path, func(tx *bolt.Tx) error {
					return tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, 7))
				})
			}, store.ErrSchema,
			"open store PATH: schema 7, this release knows 1: written by a newer release; run that release, or move the file away to start empty",
		},
		{
			"no data", func(t *testing.T, path string) {
				t.Helper()
				tamper(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("data")) })
			}, store.ErrDamaged,
			"open store PATH: damaged: it has no revision or no data; restore it from a copy, or move the file away to start empty",
		},
		{
			"short value", func(t *testing.T, path string) {
				t.Helper()
				tamper(t, path, func(tx *bolt.Tx) error { return tx.Bucket([]byte("data")).Put([]byte("x"), []byte("y")) })
			}, store.ErrDamaged,
			`open store PATH: damaged: key "x" has no revision; restore it from a copy, or move the file away to start empty`,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			c.prep(t, path)
			_, err := boltstore.Open(path)
			require.Error(t, err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			assert.Equal(t, c.want, strings.ReplaceAll(err.Error(), path, "PATH"))
		})
	}
}

// tamper makes a store and changes it behind its back.
func tamper(t *testing.T, path string, fn func(*bolt.Tx) error) {
	t.Helper()
	s, err := boltstore.Open(path)
	require.NoError(t, err)
	put(t, s, "a", "1")
	require.NoError(t, s.Close())
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, errors.Join(db.Update(fn), db.Close()))
}

// TestDamage cuts a store at many lengths and flips bytes in it: to open it is
// an error or works, and never a crash.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	s, err := boltstore.Open(path)
	require.NoError(t, err)
	_, err = s.Update(t.Context(), func(tx store.Tx) error {
		for i := range 1000 {
			if err := tx.Put(fmt.Sprintf("key/%d", i), make([]byte, 50)); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // to be repeatable
	refused := 0
	for i := range 300 {
		b := append([]byte(nil), whole...)
		if i%60 != 1 { // few of the others: the race detector is slow in what bbolt does with them
			b = b[:rnd.IntN(len(b))]
		} else {
			for range 64 {
				b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
			}
		}
		p := filepath.Join(dir, fmt.Sprint(i)) // a new name: a file that made bbolt panic stays locked
		require.NoError(t, os.WriteFile(p, b, 0o600))
		if s, err := boltstore.Open(p); err != nil {
			refused++
		} else {
			require.NoError(t, s.Close())
		}
		require.NoError(t, os.Remove(p))
	}
	assert.Greater(t, refused, 100)
}
