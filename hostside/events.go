package hostside

import (
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// eventQueue is a channel that never makes its senders wait.
type eventQueue struct {
	out  chan vnic.Event
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending []vnic.Event
	wake    chan struct{} // has a token when pending may be filled
}

func newEventQueue() *eventQueue {
	q := &eventQueue{
		out: make(chan vnic.Event), stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	go q.run()
	return q
}

func (q *eventQueue) send(ev vnic.Event) {
	q.mu.Lock()
	q.pending = append(q.pending, ev)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) run() {
	defer close(q.done)
	defer close(q.out)
	for {
		q.mu.Lock()
		batch := q.pending
		q.pending = nil
		q.mu.Unlock()
		for _, ev := range batch {
			select {
			case q.out <- ev:
			case <-q.stop:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
	}
}

// close ends the queue and closes its channel. What nobody read is lost.
func (q *eventQueue) close() {
	close(q.stop)
	<-q.done
}
