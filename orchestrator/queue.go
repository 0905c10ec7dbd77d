package orchestrator

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Pauses before a task that failed runs again: the first, doubled each time, up
// to the last.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 30 * time.Second
)

// queue runs tasks in the background until they succeed. A task has a name, and
// runs at most once at a time: to add it while it runs makes it run once more,
// and to add it while it pauses ends the pause.
type queue struct {
	log    *slog.Logger
	ctx    context.Context // the life of the goroutines, not of a call
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	tasks  map[string]*task // guarded by mu
	closed bool             // guarded by mu
}

type task struct {
	again bool          // guarded by queue.mu; it was added while it ran
	added chan struct{} // has room for one; ends a pause
}

func newQueue(log *slog.Logger) *queue {
	q := &queue{log: log, tasks: map[string]*task{}}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// add has fn run soon. All who add a name give it the same function.
func (q *queue) add(name string, fn func(context.Context) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tasks[name]; t != nil {
		t.again = true
		select {
		case t.added <- struct{}{}:
		default:
		}
		return
	}
	q.startLocked(name, fn)
}

// again is add for who can wait: it ends no pause.
func (q *queue) again(name string, fn func(context.Context) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tasks[name]; t != nil {
		t.again = true
		return
	}
	q.startLocked(name, fn)
}

// keep is add for a task that may be there already: then it goes on at its own
// pace.
func (q *queue) keep(name string, fn func(context.Context) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.tasks[name] == nil {
		q.startLocked(name, fn)
	}
}

func (q *queue) startLocked(name string, fn func(context.Context) error) {
	if q.closed {
		return
	}
	t := &task{added: make(chan struct{}, 1)}
	q.tasks[name] = t
	q.wg.Go(func() { q.run(name, t, fn) })
}

func (q *queue) run(name string, t *task, fn func(context.Context) error) {
	for pause := firstPause; ; {
		err := fn(q.ctx)
		if q.ctx.Err() != nil || q.finish(name, t, err) {
			return
		}
		if err == nil {
			pause = firstPause
			continue
		}
		q.log.Warn("task failed, it will be tried again", "task", name, "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, lastPause)
		case <-t.added:
			pause = firstPause
		case <-q.ctx.Done():
		}
		timer.Stop()
	}
}

// finish forgets a task that succeeded and wasn't added again.
func (q *queue) finish(name string, t *task, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := t.again
	t.again = false
	if err != nil || again {
		return false
	}
	delete(q.tasks, name)
	return true
}

// close stops all tasks and waits for them.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.cancel()
	q.wg.Wait()
}
