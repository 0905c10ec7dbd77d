package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// SetPort says what may come in by a tap from now on: what is new is allowed
// and what is no longer leased is not, in one transaction.
func (g *Guard) SetPort(_ context.Context, p Port) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.Direct {
		return g.setDirectLocked(p)
	}
	old, had := g.ports[p.Tap]
	p.Addresses, p.Published = slices.Clone(p.Addresses), slices.Clone(p.Published)
	g.ports[p.Tap] = p
	err := g.changeLocked(old, had, p)
	if err != nil {
		if delete(g.ports, p.Tap); had {
			g.ports[p.Tap] = old
		}
		return fmt.Errorf("allow port %s: %w", p.Tap, err)
	}
	return nil
}

// RemovePort forgets a tap: nothing may come in by it. One that is not known is
// no error.
func (g *Guard) RemovePort(_ context.Context, tap string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.direct.ports[tap]; ok {
		return g.removeDirectLocked(tap)
	}
	old, had := g.ports[tap]
	if !had {
		return nil
	}
	delete(g.ports, tap)
	var err error
	if g.emptyLocked() {
		err = g.applyLocked()
	} else {
		err = g.changeLocked(old, true, Port{Tap: tap})
	}
	if err != nil {
		g.ports[tap] = old
		return fmt.Errorf("forget port %s: %w", tap, err)
	}
	return nil
}

// changeLocked turns a port into another one; without a MAC there is none
// afterwards. When the kernel has the tables otherwise than g knows, they are
// made anew: someone flushed the rule set.
func (g *Guard) changeLocked(old Port, known bool, p Port) error {
	publishes, limits := len(p.Published) > 0 && !g.has.publishing, p.Limit != Limit{} && !g.has.limiting
	if !known && len(g.networks)+len(g.ports)+len(g.services) == 1 || publishes || limits {
		return g.applyLocked() // there are no tables yet, or they lack what it takes
	}
	var add, del elements
	if known {
		del = elementsOf(old)
	}
	if !p.MAC.IsZero() {
		add = elementsOf(p)
	}
	err := g.transactLocked(func(c *nftables.Conn) error {
		if err := del.each(c.SetDeleteElements); err != nil {
			return err
		}
		changeLimit(c, p.Tap, old.Limit, p.Limit)
		return add.each(c.SetAddElements)
	})
	// EINVAL: sets of an earlier version were loaded, with other keys.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		g.log.Warn("packet filter was changed by someone else, restoring it", "table", tableName)
		return g.applyLocked()
	}
	return err
}
