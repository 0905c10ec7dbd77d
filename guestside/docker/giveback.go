package docker

import (
	"context"
	"time"
)

// giveBack gives back reserved addresses that dockerd asked for and then neither
// used nor gave back. It returns when it is to be called again, zero for never.
func (p *ipam) giveBack(ctx context.Context) (next time.Time) {
	now := time.Now()
	p.learn(ctx, now)
	kept := p.auxiliary()
	var old []place
	p.mu.Lock()
	for at, since := range p.idle {
		due := since.Add(p.d.cfg.Kept)
		switch {
		case kept[at]:
			delete(p.idle, at)
		case due.After(now):
			next = sooner(next, due)
		default:
			old = append(old, at)
			delete(p.idle, at)
			delete(p.held, at)
		}
	}
	p.mu.Unlock()
	for _, at := range old {
		p.d.log.Warn("an address that docker reserved and never used is given back", "network", at.network, "address", at.addr)
		p.unreserve(ctx, at)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list {
		next = sooner(next, now.Add(p.d.cfg.Retry))
	}
	return next
}

// listAgain has the host asked for its reservations.
func (p *ipam) listAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = true
}

// learn asks the host which addresses are reserved, if there may be some that are
// not known.
func (p *ipam) learn(ctx context.Context, now time.Time) {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	if !list {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.d.cfg.Timeout)
	defer cancel()
	all, err := p.d.cfg.Host.Reservations(ctx)
	if err != nil {
		p.d.log.Debug("docker driver: the host's reservations can't be listed", "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = false
	for _, r := range all {
		at := place{r.Network, r.Address}
		if _, ok := p.idle[at]; !ok {
			p.idle[at] = now
		}
	}
}

// auxiliary returns the addresses that docker networks have reserved for good.
func (p *ipam) auxiliary() map[place]bool {
	all := map[place]bool{}
	p.d.book.view(func(s *state) {
		for _, n := range s.Networks {
			for _, a := range n.Auxiliary {
				all[place{n.Name, a}] = true
			}
		}
	})
	return all
}

// reserved says whether an address is kept already, for a container that is to come
// or for good. The host takes it for the same request, made again.
func (p *ipam) reserved(at place) bool {
	p.mu.Lock()
	_, idle := p.idle[at]
	p.mu.Unlock()
	return idle || p.auxiliary()[at]
}
