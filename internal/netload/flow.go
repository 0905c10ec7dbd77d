package netload

import (
	"math"
	"sync/atomic"
)

// flow is one end of a flow. Its counts are of the current phase.
type flow struct {
	fd int // guarded by the party's mu until attached

	// sent counts messages.
	sent atomic.Uint64
	// received counts bytes of a tcp_stream, else messages.
	received atomic.Uint64
	// target is what received is waited for to reach.
	target  atomic.Uint64
	reached chan struct{} // holds one

	// These belong to the loop, and to others once it has ended.
	latency    *Histogram
	late, lost uint64

	_ [64]byte // flows don't share a cache line
}

func newFlow() *flow {
	f := &flow{fd: -1, reached: make(chan struct{}, 1)}
	f.reset()
	return f
}

// reset readies f for a phase. Nothing is on its way.
func (f *flow) reset() {
	f.sent.Store(0)
	f.received.Store(0)
	f.target.Store(math.MaxUint64)
	f.late, f.lost = 0, 0
	f.latency = nil
}

// count adds what has been received, and tells who waits for it.
func (f *flow) count(n uint64) {
	if f.received.Add(n) >= f.target.Load() {
		select {
		case f.reached <- struct{}{}:
		default:
		}
	}
}

// expect returns what gets a value once n has been received.
func (f *flow) expect(n uint64) <-chan struct{} {
	select {
	case <-f.reached: // of an earlier phase
	default:
	}
	f.target.Store(n)
	f.count(0)
	return f.reached
}
