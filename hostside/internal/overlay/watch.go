package overlay

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// suspects are what may have to be repaired.
type suspects struct {
	mu    sync.Mutex
	macs  map[vnic.MAC]bool
	addrs map[netip.Addr]bool
	link  bool // the network's link, or its bridge
	all   bool // everything
}

// manySuspects is how many of them are looked at one by one.
const manySuspects = 4096

func (s *suspects) entry(e rtnl.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all:
		return
	case s.macs == nil:
		s.macs, s.addrs = map[vnic.MAC]bool{}, map[netip.Addr]bool{}
	}
	if e.Addr.IsValid() {
		s.addrs[e.Addr] = true
	} else {
		s.macs[e.MAC] = true
	}
	if len(s.macs)+len(s.addrs) > manySuspects {
		s.all, s.macs, s.addrs = true, nil, nil
	}
}

func (s *suspects) mark(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.all = true, s.all || all
}

// take returns all suspects and forgets them. When nothing is suspect, ok is false.
func (s *suspects) take() (k keys, all, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k = keys{slices.Collect(maps.Keys(s.macs)), slices.Collect(maps.Keys(s.addrs))}
	all, ok = s.all, s.all || s.link || len(k.macs)+len(k.addrs) > 0
	s.macs, s.addrs, s.link, s.all = nil, nil, false, false
	return k, all, ok
}

// listen reads news until the monitor is closed. It waits for nothing else, and compares
// at once, so that what the overlay itself does takes no memory.
func (o *Overlay) listen() {
	for {
		news, err := o.monitor.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			o.cfg.Log.Warn("news of the kernel can't be read; all entries are compared", "error", err)
			news.Lost = true
		}
		if o.hear(news) {
			select {
			case o.wake <- struct{}{}:
			default: // it has been told
			}
		}
	}
}

// hear sorts out what is suspect, and tells whether anything is so.
func (o *Overlay) hear(news rtnl.EntryNews) (suspect bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if news.Lost {
		o.stats.Overruns++
		for _, n := range o.networks {
			n.suspects.mark(true)
			suspect = true
		}
		return suspect
	}
	for _, e := range news.Entries {
		p, ok := o.places[e.Index]
		if !ok { // another port of a bridge
			p, ok = o.places[e.Master]
		}
		if ok && !p.table.agrees(e, p.port) {
			p.suspects.entry(e)
			suspect = true
		}
	}
	for _, i := range news.Links {
		if p, ok := o.places[i]; ok {
			p.suspects.mark(false)
			suspect = true
		}
	}
	return suspect
}

// repairPause is between a repair that failed and the next try.
const repairPause = time.Second

// repairs looks at suspects until ctx is done.
func (o *Overlay) repairs(ctx context.Context) {
	again := time.NewTimer(repairPause)
	again.Stop()
	for {
		select {
		case <-o.wake:
		case <-again.C:
		case <-ctx.Done():
			return
		}
		o.mu.Lock()
		networks := slices.Collect(maps.Values(o.networks))
		o.mu.Unlock()
		for _, n := range networks {
			if k, all, ok := n.suspects.take(); ok && !o.repair(ctx, n, k, all) {
				n.suspects.mark(true)
				again.Reset(repairPause)
			}
		}
	}
}

// repair makes suspects what they should be. It returns whether that is so, as far as
// another try would help.
func (o *Overlay) repair(ctx context.Context, n *network, k keys, all bool) bool {
	var d Drift
	var err error
	if all {
		d, err = o.compare(ctx, n)
	} else {
		// First the link: news of its entries come before those of its own end.
		d, err = o.counted(n, func() (Drift, error) { return o.restore(ctx, n) })
		if err == nil {
			var e Drift
			e, err = o.lookAt(ctx, n, k)
			d.add(e)
		}
	}
	if d.Sum() > 0 {
		o.cfg.Log.Warn("entries were not as declared and have been repaired", "network", n.Name,
			"missing", d.Missing, "wrong", d.Wrong, "foreign", d.Foreign)
	}
	if err == nil || errors.Is(err, vnic.ErrAddressTaken) || ctx.Err() != nil {
		return true
	}
	o.cfg.Log.Warn("overlay network can't be repaired, it will be tried again", "network", n.Name, "error", err)
	return false
}
