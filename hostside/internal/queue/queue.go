// Package queue joins senders that must not wait to a receiver that may be slow.
package queue

import "sync"

// Queue is an unbounded queue between a sender that must not wait and a
// receiver that may be slow. Create it with New.
type Queue[T any] struct {
	out  chan T
	stop chan struct{} // closed by Drop
	gone chan struct{} // closed when the goroutine has ended
	wake chan struct{} // holds one token when there is news

	mu      sync.Mutex // guards what follows
	items   []T
	ended   bool
	dropped bool
}

// New returns an empty queue. End or Drop it.
func New[T any]() *Queue[T] {
	q := &Queue[T]{
		out:  make(chan T),
		stop: make(chan struct{}),
		gone: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	go q.run()
	return q
}

// Out carries the items, each once and in order.
func (q *Queue[T]) Out() <-chan T { return q.out }

// Push adds an item. It never waits.
func (q *Queue[T]) Push(v T) {
	q.mu.Lock()
	if !q.ended {
		q.items = append(q.items, v)
	}
	q.mu.Unlock()
	q.signal()
}

// End closes the output once it has delivered what is there.
func (q *Queue[T]) End() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
}

// Drop closes the output at once, and waits until it is closed.
func (q *Queue[T]) Drop() {
	q.mu.Lock()
	q.ended = true
	if !q.dropped {
		q.dropped = true
		close(q.stop)
	}
	q.mu.Unlock()
	<-q.gone
}

func (q *Queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue[T]) run() {
	defer close(q.gone)
	defer close(q.out)
	for {
		items, ended := q.take()
		for _, v := range items {
			select {
			case q.out <- v:
			case <-q.stop:
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
	}
}

func (q *Queue[T]) take() ([]T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items, q.ended
}
