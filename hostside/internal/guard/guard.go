package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// Port is what may come in by a tap, and what is sent there.
type Port struct {
	Tap       string
	MAC       vnic.MAC
	Addresses []netip.Addr
	Published []Published // in the order of [Publish]
	Limit     Limit
	Open      bool // it may send from, and is sent what is for, any address
	Direct    bool // it is a macvtap, in no bridge: it has neither Published nor Limit
}

// Guard is the packet filter of one network namespace. It is safe for
// concurrent use; changes are made one after the other.
type Guard struct {
	log   *slog.Logger
	netns *netnsx.NS
	watch *watch

	mu       sync.Mutex // guards what follows, and the order of changes in the kernel
	nft      *nftables.Conn
	closed   bool
	ports    map[string]Port
	direct   directPorts
	networks map[string]vnic.Network
	services map[serviceKey]served
	has      needs // what the tables in the kernel have
}

// needs is what tables have only for those who need it, so that a kernel may lack it:
// published ports, limits and services.
type needs struct{ publishing, limiting, serving bool }

// Open returns the filter of the calling thread's network namespace, with the
// ports and masqueraded networks that an earlier process left. When there are
// any, the tables are put right.
func Open(log *slog.Logger) (*Guard, error) {
	netns, err := netnsx.Current()
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	g := &Guard{log: log, netns: netns, ports: map[string]Port{}, direct: newDirectPorts(), networks: map[string]vnic.Network{}, services: map[serviceKey]served{}}
	if err := g.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open packet filter: %w", err), g.Close())
	}
	return g, nil
}

func (g *Guard) start() error {
	// The calling thread is in the namespace: opening the socket from here
	// saves the change of namespaces.
	var err error
	if g.nft, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(bigBuffers)); err != nil {
		return err
	}
	found, err := g.load()
	if err == nil && found {
		err = g.applyLocked()
	}
	if err == nil {
		err = g.loadDirectLocked()
	}
	if err != nil {
		return err
	}
	return g.startWatch()
}

// Close lets go of the filter. It stays in force.
func (g *Guard) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	var errs error
	if g.watch != nil {
		errs = g.watch.stop() // may be waiting for the lock
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nft != nil {
		errs = errors.Join(errs, g.nft.CloseLasting())
	}
	return errors.Join(errs, g.netns.Close())
}

// transactLocked runs f, which adds to a batch or reads, and sends the batch.
// One connection lasts, because opening one in another namespace takes longer
// than the batch by two orders of magnitude (10 ms and 50 µs). After an error
// it is replaced: messages or answers left in it would go into the next batch.
func (g *Guard) transactLocked(f func(*nftables.Conn) error) error {
	err := f(g.nft)
	if err == nil {
		err = g.nft.Flush()
	}
	if err == nil {
		return nil
	}
	c, cerr := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(g.netns.FD()), nftables.WithSockOptions(bigBuffers))
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	cerr = g.nft.CloseLasting()
	g.nft = c
	return errors.Join(err, cerr)
}

// SetNetwork makes sure that the tables are whole, with the masquerading of n
// as n says. n is complete.
func (g *Guard) SetNetwork(_ context.Context, n vnic.Network) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n.Kind == vnic.KindMacvtap {
		return g.checkDirect(n)
	}
	old, had := g.networks[n.Name]
	g.networks[n.Name] = n
	err := g.applyLocked()
	if err != nil {
		if delete(g.networks, n.Name); had {
			g.networks[n.Name] = old
		}
		return fmt.Errorf("set packet filter of network %s: %w", n.Name, err)
	}
	return nil
}

// RemoveNetwork takes a network's masquerading away, and the tables with the
// last network when there is no port or service either.
func (g *Guard) RemoveNetwork(_ context.Context, name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.networks[name]; !ok && !g.emptyLocked() {
		return nil
	}
	old, had := g.networks[name]
	delete(g.networks, name)
	if err := g.applyLocked(); err != nil {
		if had {
			g.networks[name] = old
		}
		return fmt.Errorf("remove packet filter of network %s: %w", name, err)
	}
	return nil
}

// Port returns what the filter knows of a tap. What is not known is zero.
func (g *Guard) Port(tap string) Port {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.direct.ports[tap]; ok {
		return p
	}
	return g.ports[tap]
}

// Ports returns the ports that the filter knows, in the order of their taps.
func (g *Guard) Ports() []Port {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := slices.AppendSeq(slices.Collect(maps.Values(g.ports)), maps.Values(g.direct.ports))
	slices.SortFunc(all, func(a, b Port) int { return cmp.Compare(a.Tap, b.Tap) })
	return all
}

// applyLocked replaces both tables by what g says, in one transaction, and
// keeps the counters' values. Without network, port and service they go.
func (g *Guard) applyLocked() error {
	var counted map[Reason]Count
	err := g.transactLocked(func(c *nftables.Conn) (err error) {
		counted, err = readCounters(c, bridgeTable, inetTable)
		return err
	})
	if err != nil {
		return err
	}
	need := g.needsLocked()
	err = g.transactLocked(func(c *nftables.Conn) error {
		for _, t := range []*nftables.Table{bridgeTable, inetTable} {
			c.AddTable(t) // so that deleting it works
			c.DelTable(t)
		}
		if g.emptyLocked() {
			return nil
		}
		ports := slices.Collect(maps.Values(g.ports))
		all := elementsOf(ports...)
		for key, s := range g.services {
			all.addService(key, s)
		}
		return errors.Join(
			addBridgeTable(c, ports, counted, need.limiting),
			addInetTable(c, slices.Collect(maps.Values(g.networks)), counted, need, g.services),
			all.each(c.SetAddElements),
		)
	})
	if err == nil {
		g.has = need
		return nil
	}
	if errors.Is(err, unix.EPERM) {
		return err
	}
	if missing := g.missing(need); missing != nil {
		return missing // says why
	}
	return err
}

// emptyLocked tells whether there is nothing that takes tables.
func (g *Guard) emptyLocked() bool { return len(g.networks)+len(g.ports)+len(g.services) == 0 }

// needsLocked tells what the tables must have.
func (g *Guard) needsLocked() needs {
	serving := len(g.services) > 0
	need := needs{publishing: serving, serving: serving}
	for _, p := range g.ports {
		need.publishing = need.publishing || len(p.Published) > 0
		need.limiting = need.limiting || p.Limit != Limit{}
	}
	return need
}

// missing returns what the kernel lacks of what is needed, or nil. It has a
// connection of its own: a probe that fails may leave answers in it.
func (g *Guard) missing(need needs) error {
	c, err := nftables.New(nftables.WithNetNSFd(g.netns.FD()))
	if err == nil {
		err = probe(c, base)
	}
	if err == nil && need.publishing {
		err = probe(c, forPublishing)
	}
	if err == nil && need.limiting {
		err = probe(c, forLimits)
	}
	if err == nil && need.serving {
		err = probe(c, forServices)
	}
	return err
}
