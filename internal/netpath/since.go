package netpath

import (
	"fmt"
	"math"
)

// Since fills in the rates between two looks at the same pod: earlier and r. What
// was not there before, or began to count anew, has none.
func (r *Report) Since(earlier *Report) {
	r.Guest.since(earlier.Guest)
	r.Host.since(earlier.Host)
	for _, pair := range [][2]*Path{{r.Guest, earlier.Guest}, {r.Host, earlier.Host}} {
		if s := seconds(pair[0], pair[1]); s > 0 {
			r.Seconds = s
			return
		}
	}
}

func seconds(now, before *Path) float64 {
	if now == nil || before == nil || before.Taken < 0 || now.Taken <= before.Taken {
		return 0 // a guest may say anything
	}
	return float64(now.Taken-before.Taken) / 1e9
}

func (p *Path) since(earlier *Path) {
	s := seconds(p, earlier)
	if s == 0 {
		return
	}
	before := map[string]Count{}
	earlier.counts(func(key string, c *Count) { before[key] = *c })
	p.counts(func(key string, c *Count) {
		if old, ok := before[key]; ok {
			c.Since = c.change(old, s)
		}
	})
	p.eachChain(func(ch *Chain) {
		for _, c := range ch.Counters {
			if since := c.Count.Since; c.Drops && since != nil { // what such a rule counts is dropped
				since.Drops = uint64(math.Round(min(since.PacketsPerSecond*s, math.MaxInt64)))
			}
		}
	})
}

// change returns how much c grew in some seconds, or nil when it was reset.
func (c *Count) change(old Count, seconds float64) *Change {
	if c.Packets < old.Packets || c.Bytes < old.Bytes || c.Drops < old.Drops || c.Errors < old.Errors {
		return nil
	}
	return &Change{
		PacketsPerSecond: float64(c.Packets-old.Packets) / seconds, BytesPerSecond: float64(c.Bytes-old.Bytes) / seconds,
		Drops: c.Drops - old.Drops, Errors: c.Errors - old.Errors,
	}
}

// counts calls f for each counter, with a key that is the counter's own as long as
// what it counts is the same. A hook that is crossed twice is there twice, and its
// chains' counters have one key.
func (p *Path) counts(f func(key string, c *Count)) {
	for i := range p.Hops {
		h := &p.Hops[i]
		ns := ""
		if h.Namespace >= 0 && h.Namespace < len(p.Namespaces) {
			ns = p.Namespaces[h.Namespace].Name
		}
		if h.Hook != nil {
			chainCounts(ns, h.Hook.Chains, f)
		}
		if d := h.Device; d != nil {
			key := fmt.Sprintf("%s\x00%d\x00%s\x00", ns, d.Index, d.Name)
			f(key+"rx", &d.RX)
			f(key+"tx", &d.TX)
			for j := range d.Qdiscs {
				q := &d.Qdiscs[j]
				f(key+q.Kind+"\x00"+q.Handle+"\x00"+q.Parent, &q.Sent)
			}
			chainCounts(ns, d.Chains, f)
		}
	}
}

func chainCounts(ns string, chains []Chain, f func(key string, c *Count)) {
	for i := range chains {
		ch := &chains[i]
		for j := range ch.Counters {
			c := &ch.Counters[j]
			f(fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%s\x00%d\x00%s\x00%s", ns, ch.Family, ch.Table, ch.Name, c.Chain, c.Rule, c.Name, c.Does), &c.Count)
		}
	}
}

// Dropped tells how many packets were dropped between two looks, by devices, their
// queues and rules with a counter, and how many frames had errors. Without
// [Report.Since] it is 0.
func (p *Path) Dropped() (n uint64) {
	if p == nil {
		return 0
	}
	seen := map[string]bool{}
	p.counts(func(key string, c *Count) {
		if seen[key] {
			return
		}
		seen[key] = true
		if c.Since != nil {
			n += c.Since.Drops + c.Since.Errors
		}
	})
	return n
}
