package orchestrator

import (
	"context"
	"sync"
	"time"
)

const (
	// fillers bounds how many vNICs are plugged into a VM in the background at once.
	fillers = 4
	// fillPatience is how long the next one waits for attaches of the VM to end.
	fillPatience = time.Second
)

// rooms has a room for each VM, in which its pools are filled. The zero value is ready.
type rooms struct {
	mu sync.Mutex
	of map[string]*room // guarded by mu
}

// room bounds what is plugged in the background.
type room struct {
	places chan struct{} // holds one for each who is inside
	alone  chan struct{} // has room for one: who has put into it waits for all places

	mu       sync.Mutex
	attaches int           // guarded by mu; those that run
	quiet    chan struct{} // guarded by mu; closed when the last of them ends; nil when there is none
}

func (s *rooms) get(vm string) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of[vm]
	if r == nil {
		r = &room{places: make(chan struct{}, fillers), alone: make(chan struct{}, 1)}
		if s.of == nil {
			s.of = map[string]*room{}
		}
		s.of[vm] = r
	}
	return r
}

// attach counts an attach until the returned function is called.
func (r *room) attach() (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attaches++; r.attaches == 1 {
		r.quiet = make(chan struct{})
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.attaches--; r.attaches == 0 {
			close(r.quiet)
			r.quiet = nil
		}
	}
}

// awaitQuiet waits until no attach runs, but not for long.
func (r *room) awaitQuiet(ctx context.Context) error {
	r.mu.Lock()
	quiet := r.quiet
	r.mu.Unlock()
	if quiet == nil {
		return ctx.Err()
	}
	timer := time.NewTimer(fillPatience)
	defer timer.Stop()
	select {
	case <-quiet:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// enter waits for a place; leave gives it back.
func (r *room) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.places <- struct{}{}:
		return func() { <-r.places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// enterAlone waits until nobody is inside, and keeps others out until leave.
func (r *room) enterAlone(ctx context.Context) (leave func(), err error) {
	select {
	case r.alone <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n := 0
	leave = func() {
		for range n {
			<-r.places
		}
		<-r.alone
	}
	for ; n < fillers; n++ {
		select {
		case r.places <- struct{}{}:
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		}
	}
	return leave, nil
}
