package queue

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

func read(q *Queue[int]) (all []int) {
	for v := range q.Out() {
		all = append(all, v)
	}
	return all
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int]()
		for i := range 100 {
			q.Push(i) // nobody reads
		}
		synctest.Wait()
		q.End()
		q.Push(100)
		all := read(q)
		assert.Len(t, all, 100, "what came before the end, and no more")
		assert.IsIncreasing(t, all)
		q.Drop()
	})
}

func TestQueueDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int]()
		q.Push(1)
		q.Push(2)
		assert.Equal(t, 1, <-q.Out())
		q.Drop()
		assert.Empty(t, read(q))
		q.Drop()
	})
}
