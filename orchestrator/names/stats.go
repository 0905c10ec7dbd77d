package names

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// bounds are the upper bounds of the histograms' buckets; a last one has the rest.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second,
}

// Stats are numbers of a network since it is served. Those of queries only grow.
type Stats struct {
	// Records is how many there are, ready or not.
	Records int
	// Unserved is how many names and ports of theirs can't be names in DNS.
	Unserved int
	// Queries counts answers by their rcode, such as "NOERROR".
	Queries map[string]uint64
	// Forwarded counts queries that went to upstreams.
	Forwarded uint64
	// ForwardFailures counts those that none answered.
	ForwardFailures uint64
	// UpstreamFailures counts tries of one upstream that came to nothing.
	UpstreamFailures uint64
	// Busy counts queries and connections that were too many at once.
	Busy uint64
	// Foreign counts packets and connections from outside of the network.
	Foreign uint64
	// Malformed counts messages that are no queries.
	Malformed uint64
	// Truncated counts answers by UDP that were too long.
	Truncated uint64
	// Own and Outside are the times until answers, of the names of the network and of
	// what is forwarded.
	Own, Outside Histogram
}

// Histogram counts durations.
type Histogram struct {
	Bounds []time.Duration // upper ones, inclusive
	Counts []uint64        // one for each bound, and a last one for what is longer
	Sum    time.Duration
}

// counters are the live form of Stats.
type counters struct {
	rcodes                                       [32]atomic.Uint64
	forwarded, forwardFailures, upstreamFailures atomic.Uint64
	busy, foreign, malformed, truncated          atomic.Uint64
	own, outside                                 histogram
}

type histogram struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() Histogram {
	r := Histogram{Bounds: slices.Clone(bounds[:]), Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		r.Counts[i] = h.counts[i].Load()
	}
	return r
}

func (c *counters) answered(rcode int) {
	c.rcodes[min(rcode, len(c.rcodes)-1)].Add(1)
}

func (c *counters) read() Stats {
	s := Stats{
		Queries:   map[string]uint64{},
		Forwarded: c.forwarded.Load(), ForwardFailures: c.forwardFailures.Load(), UpstreamFailures: c.upstreamFailures.Load(),
		Busy: c.busy.Load(), Foreign: c.foreign.Load(), Malformed: c.malformed.Load(), Truncated: c.truncated.Load(),
		Own: c.own.read(), Outside: c.outside.read(),
	}
	for rcode := range c.rcodes {
		if n := c.rcodes[rcode].Load(); n > 0 {
			s.Queries[rcodeName(rcode)] = n
		}
	}
	return s
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return "OTHER"
}
