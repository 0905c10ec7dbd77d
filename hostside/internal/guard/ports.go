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
	old, had := g.ports[p.Tap]
	p.Addresses = slices.Clone(p.Addresses)
	g.ports[p.Tap] = p
	err := g.changeLocked(elementsOf(p), had, elementsOfOld(old, had))
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
	old, had := g.ports[tap]
	if !had {
		return nil
	}
	delete(g.ports, tap)
	var err error
	if len(g.networks)+len(g.ports) == 0 {
		err = g.applyLocked()
	} else {
		err = g.changeLocked(elements{}, true, elementsOf(old))
	}
	if err != nil {
		g.ports[tap] = old
		return fmt.Errorf("forget port %s: %w", tap, err)
	}
	return nil
}

func elementsOfOld(old Port, had bool) elements {
	if !had {
		return elements{}
	}
	return elementsOf(old)
}

// changeLocked takes old elements out and puts new ones in. When the kernel
// has the tables otherwise than g knows, they are made anew: someone flushed
// the rule set.
func (g *Guard) changeLocked(add elements, known bool, del elements) error {
	if !known && len(g.networks)+len(g.ports) == 1 {
		return g.applyLocked() // the first of all: there are no tables yet
	}
	err := g.transactLocked(func(c *nftables.Conn) error {
		return errors.Join(del.each(c.SetDeleteElements), add.each(c.SetAddElements))
	})
	if errors.Is(err, unix.ENOENT) {
		g.log.Warn("packet filter was changed by someone else, restoring it", "table", tableName)
		return g.applyLocked()
	}
	return err
}
