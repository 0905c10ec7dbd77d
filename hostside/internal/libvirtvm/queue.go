package libvirtvm

import "sync"

// queue is an unbounded queue between a sender that must not wait and a
// receiver that may be slow. Create it with newQueue.
type queue[T any] struct {
	out  chan T
	stop chan struct{} // closed by drop
	gone chan struct{} // closed when the goroutine has ended
	wake chan struct{} // holds one token when there is news

	mu      sync.Mutex // guards what follows
	items   []T
	ended   bool
	dropped bool
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{
		out:  make(chan T),
		stop: make(chan struct{}),
		gone: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	go q.run()
	return q
}

// push adds an item. It never waits.
func (q *queue[T]) push(v T) {
	q.mu.Lock()
	if !q.ended {
		q.items = append(q.items, v)
	}
	q.mu.Unlock()
	q.signal()
}

// end closes the output once it has delivered what is there.
func (q *queue[T]) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
}

// drop closes the output at once, and waits until it is closed.
func (q *queue[T]) drop() {
	q.mu.Lock()
	q.ended = true
	if !q.dropped {
		q.dropped = true
		close(q.stop)
	}
	q.mu.Unlock()
	<-q.gone
}

func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue[T]) run() {
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

func (q *queue[T]) take() ([]T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items, q.ended
}
