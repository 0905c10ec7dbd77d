package orchestrator

import (
	"context"
	"sync"
)

// keyLocks has a lock for each key in use. Who waits for one can give up.
type keyLocks[K comparable] struct {
	mu    sync.Mutex
	locks map[K]*keyLock // guarded by mu
}

type keyLock struct {
	held  chan struct{} // has room for one: who has put into it holds the lock
	users int           // guarded by keyLocks.mu; holders and waiters
}

// lock waits for the lock of k and returns the function that unlocks it.
func (l *keyLocks[K]) lock(ctx context.Context, k K) (unlock func(), err error) {
	kl := l.use(k)
	select {
	case kl.held <- struct{}{}:
		return func() { <-kl.held; l.drop(k, kl) }, nil
	case <-ctx.Done():
		l.drop(k, kl)
		return nil, ctx.Err()
	}
}

// tryLock is lock for those who don't want to wait; ok tells whether it worked.
func (l *keyLocks[K]) tryLock(k K) (unlock func(), ok bool) {
	kl := l.use(k)
	select {
	case kl.held <- struct{}{}:
		return func() { <-kl.held; l.drop(k, kl) }, true
	default:
		l.drop(k, kl)
		return nil, false
	}
}

func (l *keyLocks[K]) use(k K) *keyLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	kl := l.locks[k]
	if kl == nil {
		if l.locks == nil {
			l.locks = map[K]*keyLock{}
		}
		kl = &keyLock{held: make(chan struct{}, 1)}
		l.locks[k] = kl
	}
	kl.users++
	return kl
}

func (l *keyLocks[K]) drop(k K, kl *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kl.users--; kl.users == 0 {
		delete(l.locks, k)
	}
}
