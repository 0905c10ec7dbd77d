package hostside

import (
	"context"
	"sync"
)

// keyLock is a lock for each key. The zero value is ready.
type keyLock[K comparable] struct {
	mu   sync.Mutex
	held map[K]*waiters
}

// waiters is one key's lock: its channel has a token while it is free.
type waiters struct {
	free chan struct{}
	n    int // holder and waiters; guarded by keyLock.mu
}

// lock waits for the lock of k, or returns ctx's error.
func (l *keyLock[K]) lock(ctx context.Context, k K) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[K]*waiters)
	}
	w, ok := l.held[k]
	if !ok {
		w = &waiters{free: make(chan struct{}, 1)}
		w.free <- struct{}{}
		l.held[k] = w
	}
	w.n++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.n--; w.n == 0 {
			delete(l.held, k)
		}
	}
	select {
	case <-w.free:
		return func() { w.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
