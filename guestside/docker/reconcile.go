package docker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// HandedBack tells the driver that a vNIC that had left the guest's first namespace
// is there again. It returns at once.
func (d *Driver) HandedBack(id vnic.ID, _ vnic.MAC) {
	d.book.view(func(s *state) {
		for _, e := range s.Endpoints {
			if e.vnic() == id && e.Joined {
				e.away, e.back = true, time.Now()
			}
		}
	})
	d.poke()
}

// reconcile looks for what dockerd didn't tell, until ctx ends: at the start, when
// a session with the host begins, when a vNIC comes back, and when time is up for
// what was seen.
func (d *Driver) reconcile(ctx context.Context) {
	sessions := d.cfg.Host.Notify()
	compared := false // with what the host has, in this session
	for {
		now := time.Now()
		next := d.settle(ctx)
		if !compared {
			compared = d.compare(ctx)
		}
		if !compared || d.owing() {
			next = sooner(next, now.Add(d.cfg.Retry))
		}
		if compared {
			next = sooner(next, d.ipam.giveBack(ctx))
		}
		timer := newTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-sessions:
			compared = false
			d.ipam.listAgain()
		case <-d.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// forsake lets the endpoints that which picks wait for their containers no longer
// than the grace, from now: the dockerd that made them is likely gone.
func (d *Driver) forsake(which func(id string) bool) {
	d.book.view(func(s *state) {
		for id, e := range s.Endpoints {
			if which(id) && !e.away {
				e.forsaken, e.since = true, time.Now()
			}
		}
	})
	d.poke()
}

// activate answers a dockerd that begins to use the driver: what an earlier one
// has made and not given to a container is nobody's.
func (d *Driver) activate(context.Context, struct{}) (activated, error) {
	d.forsake(func(string) bool { return true })
	return activated{Implements: []string{"NetworkDriver", "IpamDriver"}}, nil
}

// hungUp notes that dockerd did not wait for the answer to a call about an
// endpoint. If it is still there it asks again.
func (d *Driver) hungUp(body []byte) {
	var q struct{ EndpointID string }
	if json.Unmarshal(body, &q) == nil && q.EndpointID != "" {
		d.forsake(func(id string) bool { return id == q.EndpointID })
	}
}

// newTimer returns a timer that fires at a time; never, when that is zero.
func newTimer(at time.Time) *time.Timer {
	if at.IsZero() {
		t := time.NewTimer(0)
		t.Stop()
		return t
	}
	return time.NewTimer(time.Until(at))
}

// sooner returns the sooner of two times, of which zero stands for never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// settle does what needs no list of the host, and returns when it is to be called
// again, zero for never.
func (d *Driver) settle(ctx context.Context) (next time.Time) {
	now := time.Now()
	var expired []string
	d.book.view(func(s *state) {
		for id, e := range s.Endpoints {
			_, home := d.cfg.Agent.AtHome(e.MAC)
			due := d.due(e, home, now)
			if !due.IsZero() && !due.After(now) {
				expired = append(expired, id)
				continue
			}
			next = sooner(next, due)
		}
	})
	for _, id := range expired {
		if !d.expire(ctx, id) {
			next = sooner(next, now.Add(d.cfg.Retry))
		}
	}
	d.payUp(ctx)
	return next
}

// due returns when an endpoint is to be ended, or looked at again, if dockerd does
// nothing; zero for never. The caller holds the book's lock.
func (d *Driver) due(e *endpoint, home bool, now time.Time) time.Time {
	patience := d.cfg.Unjoined
	if e.forsaken {
		patience = d.cfg.Grace
	}
	switch {
	case !e.Joined:
		return e.since.Add(patience)
	case !home:
		waiting := !e.away // for dockerd to move it, as far as was known
		e.away, e.back = e.away || now.Sub(e.since) >= d.cfg.Unjoined, time.Time{}
		if waiting && !e.away {
			return e.since.Add(d.cfg.Unjoined)
		}
		return time.Time{}
	case !e.away: // dockerd is about to move it
		return e.since.Add(patience)
	case e.back.IsZero():
		e.back = now
	}
	return e.back.Add(d.cfg.Grace)
}

// expire ends an endpoint of which dockerd doesn't speak any more. It returns false
// when a call about it is under way.
func (d *Driver) expire(ctx context.Context, id string) bool {
	unlock, ok := d.locks.TryLock(id)
	if !ok {
		return false
	}
	defer unlock()
	var why string
	now := time.Now()
	err := d.book.update(func(s *state) bool {
		e := s.Endpoints[id]
		if e == nil {
			return false
		}
		_, home := d.cfg.Agent.AtHome(e.MAC)
		if due := d.due(e, home, now); due.IsZero() || due.After(now) {
			return false
		}
		why = "no container has joined it"
		if e.Joined {
			why = "its vnic came back, and docker doesn't end it"
		}
		delete(s.Endpoints, id)
		s.Leaving[id] = struct{}{}
		return true
	})
	if err != nil {
		d.log.Error("an endpoint's end is not on disk", "endpoint", short(id), "error", err)
	}
	if why != "" {
		d.log.Warn("an endpoint that docker has forgotten is taken away", "endpoint", short(id), "because", why)
		_ = d.detach(ctx, id) // logged, and owed
	}
	return true
}

// endStale ends, before their grace is over, the endpoints whose vNICs came back or
// that were forsaken: one of them may have what another endpoint wants. It returns
// whether there was any. The caller holds the lock of the endpoint except.
func (d *Driver) endStale(ctx context.Context, except string) (some bool) {
	var stale []string
	d.book.view(func(s *state) {
		for id, e := range s.Endpoints {
			if _, home := d.cfg.Agent.AtHome(e.MAC); home && id != except && (e.away || e.forsaken) {
				stale = append(stale, id)
			}
		}
	})
	for _, id := range stale {
		unlock, ok := d.locks.TryLock(id)
		if !ok {
			continue // a call is about it
		}
		if err := d.forget(id); err != nil {
			d.log.Error("an endpoint's end is not on disk", "endpoint", short(id), "error", err)
		}
		d.log.Warn("an endpoint that docker has forgotten is taken away", "endpoint", short(id), "because", "another wants its port")
		some = d.detach(ctx, id) == nil || some
		unlock()
	}
	return some
}

// owing says whether something is to be tried again.
func (d *Driver) owing() (some bool) {
	d.book.view(func(s *state) {
		some = len(s.Leaving) > 0
		for _, e := range s.Endpoints {
			some = some || e.Unpublish
		}
	})
	return some
}

// payUp does what is owed to the host. It stops at the first that the host doesn't
// do: the next pass begins with another.
func (d *Driver) payUp(ctx context.Context) {
	var leaving, ports []string
	d.book.view(func(s *state) {
		leaving = slices.Collect(maps.Keys(s.Leaving))
		for id, e := range s.Endpoints {
			if e.Unpublish {
				ports = append(ports, id)
			}
		}
	})
	for _, id := range leaving {
		unlock, ok := d.locks.TryLock(id)
		if !ok {
			continue // a call does it
		}
		err := d.detachOwed(ctx, id)
		unlock()
		if err != nil {
			return
		}
	}
	for _, id := range ports {
		unlock, ok := d.locks.TryLock(id)
		if !ok {
			continue
		}
		owed := false
		d.book.view(func(s *state) { e := s.Endpoints[id]; owed = e != nil && e.Unpublish })
		if owed {
			d.unpublish(ctx, id)
		}
		unlock()
	}
}

// detachOwed takes a vNIC away if that is still owed. The caller holds the
// endpoint's lock.
func (d *Driver) detachOwed(ctx context.Context, id string) error {
	owed := false
	d.book.view(func(s *state) { _, owed = s.Leaving[id] })
	if !owed {
		return nil
	}
	return d.detach(ctx, id)
}
