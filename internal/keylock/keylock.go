// Package keylock has a lock for each key, as many as are in use, for which one
// waits no longer than a context.
package keylock

import (
	"context"
	"sync"
)

// Locks has a lock for each key. The zero value is ready, and is safe for
// concurrent use.
type Locks[K comparable] struct {
	mu    sync.Mutex
	locks map[K]*lock // guarded by mu
}

type lock struct {
	held  chan struct{} // has room for one: who has put into it holds the lock
	users int           // guarded by Locks.mu; holders and waiters
}

// Lock waits for the lock of k and returns the function that unlocks it, to be
// called once. The error is that of ctx.
func (l *Locks[K]) Lock(ctx context.Context, k K) (unlock func(), err error) {
	kl := l.use(k)
	select {
	case kl.held <- struct{}{}:
		return func() { <-kl.held; l.drop(k, kl) }, nil
	case <-ctx.Done():
		l.drop(k, kl)
		return nil, ctx.Err()
	}
}

// TryLock is Lock for those who don't want to wait; ok tells whether it worked.
func (l *Locks[K]) TryLock(k K) (unlock func(), ok bool) {
	kl := l.use(k)
	select {
	case kl.held <- struct{}{}:
		return func() { <-kl.held; l.drop(k, kl) }, true
	default:
		l.drop(k, kl)
		return nil, false
	}
}

func (l *Locks[K]) use(k K) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	kl := l.locks[k]
	if kl == nil {
		if l.locks == nil {
			l.locks = map[K]*lock{}
		}
		kl = &lock{held: make(chan struct{}, 1)}
		l.locks[k] = kl
	}
	kl.users++
	return kl
}

func (l *Locks[K]) drop(k K, kl *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kl.users--; kl.users == 0 {
		delete(l.locks, k)
	}
}
