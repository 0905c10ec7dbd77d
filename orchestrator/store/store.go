// Package store says what the orchestrator needs of its database: keys with
// values, transactions over them, a revision that grows with each commit, and
// a watch that loses nothing silently.
//
// The seam fits an embedded database, where a transaction holds a lock, and
// etcd, where it is optimistic and run again on a conflict. So a transaction's
// function may run more than once and must have no effect outside of its [Tx].
// One transaction should touch tens of keys, not thousands: etcd refuses more
// than 128 operations by default.
//
// Package boltstore keeps the data in one file, memstore in memory, etcdstore in
// etcd; storetest has the tests that every store must pass. [Copy] moves the data
// from one to another.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Errors of a store. Calls on a closed store return [os.ErrClosed].
var (
	// ErrChanged is returned by [CompareAndSwap] when the key has another revision.
	ErrChanged = errors.New("changed meanwhile")
	// ErrCompacted is returned by a watch that asks for events which the store has
	// forgotten. Read the present state anew and watch from its revision.
	ErrCompacted = errors.New("events are forgotten")
	// ErrLocked is returned when another process has the store open.
	ErrLocked = errors.New("in use by another process")
	// ErrDamaged is returned when the stored data can't be read.
	ErrDamaged = errors.New("damaged")
	// ErrSchema is returned when a newer release wrote the stored data.
	ErrSchema = errors.New("written by a newer release")
	// ErrUnavailable is returned when the store doesn't answer. Nothing was written.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrUnclear is returned by an update whose commit was sent and not answered,
	// when the store can't be asked either. It is made as a whole or never; read the
	// present state to learn which.
	ErrUnclear = errors.New("outcome of the commit is unclear")
	// ErrNotEmpty is returned by [Copy] when there are keys where it would write.
	ErrNotEmpty = errors.New("store is not empty")
)

// Item is a key with its value.
type Item struct {
	Key   string
	Value []byte // not to be modified
	// Rev is the revision of the store that put the value; 0: there is no such key.
	// It is not defined for a key that was put by the transaction that reads it.
	Rev int64
}

// Exists reports whether the key is there.
func (it Item) Exists() bool { return it.Rev != 0 }

// Event is a change of a key.
type Event struct {
	// Item has the new value; that of a deleted key is the last one.
	Item
	Deleted bool
}

// ReadTx reads from one consistent state of a store. It is valid until the
// function that it was given to returns, and for one goroutine.
type ReadTx interface {
	// Rev is the revision of that state, without the transaction's own writes.
	Rev() int64
	// Get returns the item; its Rev is 0 when there is none.
	Get(key string) (Item, error)
	// Scan returns the first limit items whose key begins with prefix, in the
	// order of their keys; all when limit is 0.
	Scan(prefix string, limit int) ([]Item, error)
}

// Tx is a [ReadTx] that writes too. It reads its own writes.
type Tx interface {
	ReadTx
	Put(key string, value []byte) error
	// Delete deletes the key; that there is none is no error.
	Delete(key string) error
	// DeletePrefix deletes every key that begins with prefix.
	DeletePrefix(prefix string) error
}

// Store is a database. It is safe for concurrent use.
type Store interface {
	// View runs fn on one state of the store and returns fn's error.
	View(ctx context.Context, fn func(ReadTx) error) error
	// Update runs fn and commits its writes, all or, when fn returns an error,
	// none. It returns the store's revision after that. fn may run several times,
	// and must not use the store but by its Tx.
	Update(ctx context.Context, fn func(Tx) error) (int64, error)
	// Watch returns the changes of keys that begin with prefix in the order of
	// their commits, from the given revision on; from 0 means: from now on. Each
	// event is delivered, or the sequence ends with [ErrCompacted]; it also ends
	// with the error of ctx, or with [os.ErrClosed]. A slow reader holds up nobody.
	Watch(ctx context.Context, prefix string, from int64) iter.Seq2[Event, error]
	// Close ends all watches and frees what the store holds.
	Close() error
}

// Unused reports whether there is no such key, as Get does, for a caller that has just
// made the key up, or has other reasons to expect so: a store where asking takes long may
// take it for granted in the first run of a transaction, and look at the commit.
func Unused(tx ReadTx, key string) (bool, error) {
	if t, ok := tx.(truster); ok {
		return t.Unused(key)
	}
	it, err := tx.Get(key)
	return !it.Exists(), err
}

// truster is a [ReadTx] that may take for granted what it will look at later.
type truster interface {
	Unused(key string) (bool, error)
}

// CompareAndSwap puts value under key when the key's revision is rev (0: when
// there is no such key), and returns the new revision; else [ErrChanged].
func CompareAndSwap(ctx context.Context, s Store, key string, rev int64, value []byte) (int64, error) {
	return s.Update(ctx, func(tx Tx) error { return Swap(tx, key, rev, value) })
}

// Swap is [CompareAndSwap] within a transaction.
func Swap(tx Tx, key string, rev int64, value []byte) error {
	it, err := tx.Get(key)
	if err != nil {
		return err
	}
	if it.Rev != rev {
		return fmt.Errorf("swap %s of revision %d: it has %d: %w", key, rev, it.Rev, ErrChanged)
	}
	return tx.Put(key, value)
}
