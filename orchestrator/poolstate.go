package orchestrator

import (
	"sync"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// pools remembers of pools what is not stored. The zero value is ready.
type pools struct {
	mu     sync.Mutex
	of     map[poolID]*poolMemory // guarded by mu
	closed bool                   // guarded by mu
}

// poolMemory is what is remembered of one pool.
type poolMemory struct {
	hits, misses uint64
	lastError    string
	lastUse      time.Time
	wake         *time.Timer // nil when none is set
	due          time.Time   // when it wakes
}

func (s *pools) getLocked(k poolID) *poolMemory {
	m := s.of[k]
	if m == nil {
		m = &poolMemory{lastUse: time.Now()}
		if s.of == nil {
			s.of = map[poolID]*poolMemory{}
		}
		s.of[k] = m
	}
	return m
}

// with runs fn on what is remembered of a pool.
func (s *pools) with(k poolID, fn func(*poolMemory)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.getLocked(k))
}

// used notes that a vNIC was taken, parked or asked for.
func (s *pools) used(k poolID) { s.with(k, func(m *poolMemory) { m.lastUse = time.Now() }) }

// hit and miss note the outcome of an attach.
func (s *pools) hit(k poolID) {
	s.with(k, func(m *poolMemory) { m.hits++; m.lastUse = time.Now() })
}

func (s *pools) miss(k poolID) {
	s.with(k, func(m *poolMemory) { m.misses++; m.lastUse = time.Now() })
}

// filled notes why a pool could not be filled, nil when it could.
func (s *pools) filled(k poolID, err error) {
	s.with(k, func(m *poolMemory) {
		if m.lastError = ""; err != nil {
			m.lastError = err.Error()
		}
	})
}

// failing returns the pools of a VM that could not be filled the last time.
func (s *pools) failing(vm string) []poolID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []poolID
	for k, m := range s.of {
		if k.vm == vm && m.lastError != "" {
			list = append(list, k)
		}
	}
	return list
}

// idleAt returns when a pool will have been left alone for that long.
func (s *pools) idleAt(k poolID, idle time.Duration) (at time.Time) {
	s.with(k, func(m *poolMemory) { at = m.lastUse.Add(idle) })
	return at
}

// wakeAt has fn run at a time, unless something is due for the pool before.
func (s *pools) wakeAt(k poolID, at time.Time, fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.getLocked(k)
	switch {
	case s.closed || m.wake != nil && !at.Before(m.due):
		return
	case m.wake != nil:
		m.wake.Stop()
	}
	m.due = at
	m.wake = time.AfterFunc(time.Until(at), func() {
		s.with(k, func(m *poolMemory) {
			if m.due.Equal(at) { // else another one is set by now
				m.wake = nil
			}
		})
		fn()
	})
}

// forget ends what is due for pools, and forgets them.
func (s *pools) forget(match func(poolID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, m := range s.of {
		if !match(k) {
			continue
		}
		if m.wake != nil {
			m.wake.Stop()
		}
		delete(s.of, k)
	}
}

// close ends all that is due.
func (s *pools) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, m := range s.of {
		if m.wake != nil {
			m.wake.Stop()
		}
	}
}

func (s *pools) status(p vnic.Pool) vnic.PoolStatus {
	st := vnic.PoolStatus{Pool: p}
	s.with(poolID{p.VM, p.Network}, func(m *poolMemory) {
		st.Hits, st.Misses, st.LastError = m.hits, m.misses, m.lastError
	})
	return st
}
