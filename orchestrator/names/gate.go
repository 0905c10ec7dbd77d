package names

import (
	"net/netip"
	"sync"
)

// gate lets so many in at once, and so many of each address. It is safe for
// concurrent use.
type gate struct {
	limit, each int

	mu    sync.Mutex // guards what follows
	total int
	by    map[netip.Addr]int
}

func newGate(limit, each int) *gate {
	return &gate{limit: limit, each: each, by: map[netip.Addr]int{}}
}

// enter says whether one more of that address is let in; leave is called after.
func (g *gate) enter(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.limit || g.by[a] >= g.each {
		return false
	}
	g.total++
	g.by[a]++
	return true
}

func (g *gate) leave(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.by[a]--; g.by[a] == 0 {
		delete(g.by, a)
	}
}
