package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/internal/feed"
)

// schema is the version of the layout of the file.
const schema = 1

var (
	metaBucket  = []byte("meta") // schemaKey and revKey, each with a big-endian uint64
	dataBucket  = []byte("data") // key: revision as a big-endian uint64, then the value
	schemaKey   = []byte("schema")
	revisionKey = []byte("revision")
)

// lockTimeout is how long to wait for another process to close the file.
const lockTimeout = time.Second

// Open opens the file at path, and makes it, readable by its owner only, when
// there is none; its directory must exist. All of the file is read once to see
// that it is whole. It waits up to a second for another process to close the
// file. Errors are [store.ErrLocked], [store.ErrDamaged], [store.ErrSchema], or
// those of the file system; they name the file and the remedy.
func Open(path string) (*Store, error) {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	db, rev, err := open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	return &Store{db: db, path: path, writer: make(chan struct{}, 1), feed: feed.New(rev)}, nil
}

// open returns the database and its revision. A damaged file makes bbolt
// panic, or the kernel raise a fault where the mapping has no page behind it:
// both become errors here.
func open(path string) (db *bolt.DB, rev int64, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it can't be read: %v", store.ErrDamaged, p)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return nil, 0, err
	}
	if rev, err = prepare(db); err != nil {
		return nil, 0, errors.Join(err, db.Close())
	}
	return db, rev, nil
}

// prepare makes the buckets of a new file, or checks those of an old one.
func prepare(db *bolt.DB) (rev int64, err error) {
	var fresh bool
	err = db.View(func(tx *bolt.Tx) error {
		if fresh = tx.Bucket(metaBucket) == nil; fresh {
			return nil
		}
		rev, err = check(tx)
		return err
	})
	if err != nil || !fresh {
		return rev, err
	}
	return 0, db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(schemaKey, binary.BigEndian.AppendUint64(nil, schema)); err != nil {
			return err
		}
		if err := putRev(meta, 0); err != nil {
			return err
		}
		_, err = tx.CreateBucket(dataBucket)
		return err
	})
}

// check reads the whole file and returns its revision.
func check(tx *bolt.Tx) (int64, error) {
	meta, data := tx.Bucket(metaBucket), tx.Bucket(dataBucket)
	v := meta.Get(schemaKey)
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: it has no schema version", store.ErrDamaged)
	}
	if n := binary.BigEndian.Uint64(v); n > schema {
		return 0, fmt.Errorf("schema %d, this release knows %d: %w", n, schema, store.ErrSchema)
	}
	v = meta.Get(revisionKey)
	if len(v) != 8 || data == nil {
		return 0, fmt.Errorf("%w: it has no revision or no data", store.ErrDamaged)
	}
	rev := int64(binary.BigEndian.Uint64(v)) //nolint:gosec // it was put as an int64
	return rev, data.ForEach(func(k, v []byte) error {
		_, err := decode(string(k), v)
		return err
	})
}

// explain adds what can be done.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open store %s: another brfused has it open; stop that one, or give this one a file of its own: %w",
			path, store.ErrLocked)
	case errors.Is(err, store.ErrSchema):
		return fmt.Errorf("open store %s: %w; run that release, or move the file away to start empty", path, err)
	case errors.Is(err, store.ErrDamaged):
		return fmt.Errorf("open store %s: %w; restore it from a copy, or move the file away to start empty", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrInvalidMapping),
		strings.HasPrefix(err.Error(), "file size too small"): // bbolt has no name for it
		return fmt.Errorf("open store %s: %w: %w; restore it from a copy, or move the file away to start empty",
			path, store.ErrDamaged, err)
	}
	return fmt.Errorf("open store %s: %w", path, err)
}
