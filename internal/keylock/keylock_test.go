package keylock

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOneHolderAKey(t *testing.T) {
	var l Locks[int]
	var held [3]int // the race detector watches it
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			unlock, err := l.Lock(t.Context(), i%3)
			if assert.NoError(t, err) {
				held[i%3]++
				unlock()
			}
		})
	}
	wg.Wait()
	assert.Equal(t, [3]int{100, 100, 100}, held)
	assert.Empty(t, l.locks, "a key that nobody uses costs nothing")
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks[string]
		unlock, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() {
			_, err := l.Lock(ctx, "a")
			waited <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-waited, context.Canceled)
		unlock()
		assert.Empty(t, l.locks)
	})
}

func TestTryLock(t *testing.T) {
	var l Locks[string]
	unlock, ok := l.TryLock("a")
	require.True(t, ok)
	_, ok = l.TryLock("a")
	assert.False(t, ok)
	other, ok := l.TryLock("b")
	assert.True(t, ok)
	other()
	unlock()
	unlock, ok = l.TryLock("a")
	require.True(t, ok)
	unlock()
	assert.Empty(t, l.locks)
}
