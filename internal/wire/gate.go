package wire

import (
	"sync"
	"time"
)

// gate counts goroutines of calls, until it is shut.
type gate struct {
	mu   sync.Mutex // guards what is below
	n    int
	idle chan struct{} // set when shut; closed when n is 0
}

// enter tells whether a call may begin.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle != nil {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.idle != nil && g.n == 0 {
		close(g.idle)
	}
}

// shut lets nobody in any more and waits until all have left, but no longer
// than limit. It returns how many have not.
func (g *gate) shut(limit time.Duration) int {
	g.mu.Lock()
	g.idle = make(chan struct{})
	if g.n == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-g.idle:
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}
