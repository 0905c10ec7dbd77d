package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// directPorts are the ports that are macvtaps. Each has a table of its own in the family
// netdev, named as it is: a chain there is bound to one device, and goes with it.
type directPorts struct {
	ports map[string]Port
	past  map[Reason]Count // dropped by tables that are gone
}

func newDirectPorts() directPorts {
	return directPorts{ports: map[string]Port{}, past: map[Reason]Count{}}
}

const inNetdev = nftables.TableFamilyNetdev

func directTable(tap string) *nftables.Table { return &nftables.Table{Name: tap, Family: inNetdev} }

// ofDirect tells whether a table of the family netdev is a port's.
func ofDirect(table string) bool {
	id, ok := vnic.IDFromName(table)
	return ok && id.TapName() == table
}

var forDirect = []feature{
	{"nftables filtering of what a link sends", "Linux 5.16 or later with CONFIG_NETFILTER_EGRESS", inNetdev, func(c *nftables.Conn, t *nftables.Table) {
		c.AddChain(egressOf("lo", t))
	}},
}

// egressOf is the chain for what the guest sends, which is what its macvtap sends to the
// uplink.
func egressOf(device string, t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{
		Name: prerouting.Name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookEgress,
		Priority: nftables.ChainPriorityFilter, Device: device,
	}
}

// ingressOf is the chain for what the guest receives.
func ingressOf(device string, t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{
		Name: delivery.Name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityFilter, Device: device,
	}
}

// setDirectLocked puts the filter of a macvtap, which exists, in force in place of an
// earlier one.
func (g *Guard) setDirectLocked(p Port) error {
	counted, err := g.directCountersLocked(p.Tap)
	if err == nil {
		p.Addresses = slices.Clone(p.Addresses)
		err = g.transactLocked(func(c *nftables.Conn) error { return addDirectTable(c, p, counted) })
	}
	if err != nil {
		return fmt.Errorf("allow port %s: %w", p.Tap, err)
	}
	g.direct.ports[p.Tap] = p
	return nil
}

func (g *Guard) removeDirectLocked(tap string) error {
	counted, err := g.directCountersLocked(tap)
	if err == nil {
		err = g.transactLocked(func(c *nftables.Conn) error {
			c.AddTable(directTable(tap)) // so that deleting it works
			c.DelTable(directTable(tap))
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("forget port %s: %w", tap, err)
	}
	delete(g.direct.ports, tap)
	sum(g.direct.past, counted)
	return nil
}

// addDirectTable adds the sets and rules of the bridge table for one port. Its device
// sends what a tap hands to the bridge, and receives what a bridge sends by a tap.
func addDirectTable(c *nftables.Conn, p Port, counted map[Reason]Count) error {
	t := directTable(p.Tap)
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	for _, r := range bridgeReasons {
		c.AddObj(counterObj(t, r, counted[r]))
	}
	sets := map[*nftables.Set]*nftables.Set{}
	for _, set := range []*nftables.Set{macSet, openSet, ipv4Set, ipv6Set} {
		sets[set] = directSet(set, t)
		if err := c.AddSet(sets[set], nil); err != nil {
			return err
		}
	}
	addChains(c, directRules(p.Tap, t))
	return elementsOf(p).each(func(set *nftables.Set, e []nftables.SetElement) error { return c.SetAddElements(sets[set], e) })
}

func directSet(set *nftables.Set, t *nftables.Table) *nftables.Set {
	own := *set
	own.Table = t
	return &own
}

// directRules are the bridge table's rules, of chains of t, with the directions of the
// port's device.
func directRules(device string, t *nftables.Table) []chainRules {
	all := bridgeRules()
	chains := map[*nftables.Chain]*nftables.Chain{prerouting: egressOf(device, t), delivery: ingressOf(device, t)}
	turned := map[expr.MetaKey]expr.MetaKey{expr.MetaKeyIIFNAME: expr.MetaKeyOIFNAME, expr.MetaKeyOIFNAME: expr.MetaKeyIIFNAME}
	for i, cr := range all {
		if chains[cr.chain] == nil {
			chains[cr.chain] = &nftables.Chain{Name: cr.chain.Name, Table: t}
		}
		all[i].chain = chains[cr.chain]
		for _, r := range cr.rules {
			for _, e := range r {
				if m, ok := e.(*expr.Meta); ok && turned[m.Key] != 0 {
					m.Key = turned[m.Key]
				}
			}
		}
	}
	return all
}

// loadDirectLocked reads the ports of an earlier process, and makes their tables anew.
func (g *Guard) loadDirectLocked() error {
	found := map[string]Port{}
	err := g.transactLocked(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(inNetdev)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list nftables tables: %w", err)
		}
		for _, t := range tables {
			if t.Family == inNetdev && ofDirect(t.Name) {
				if found[t.Name], err = loadDirect(c, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for tap, p := range found {
		g.direct.ports[tap] = p
		if err := g.setDirectLocked(p); err != nil { // without its device it filters nothing
			g.log.Debug("packet filter of a macvtap stays as it is", "tap", tap, "error", err)
		}
	}
	return nil
}

func loadDirect(c *nftables.Conn, t *nftables.Table) (Port, error) {
	ports := map[string]Port{}
	for _, set := range []*nftables.Set{macSet, openSet, ipv4Set, ipv6Set} {
		found, err := list(c, directSet(set, t))
		if err != nil {
			return Port{}, err
		}
		for _, e := range found {
			loadElement(ports, set, e.Key)
		}
	}
	p := ports[t.Name]
	p.Tap, p.Direct = t.Name, true
	return p, nil
}

// restoreDirectLocked makes tables anew that someone else deleted.
func (g *Guard) restoreDirectLocked() {
	if len(g.direct.ports) == 0 {
		return
	}
	missing := maps.Clone(g.direct.ports)
	err := g.transactLocked(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(inNetdev)
		for _, t := range tables {
			delete(missing, t.Name)
		}
		return err
	})
	if err != nil {
		g.log.Warn("see if the packet filters of macvtaps are there", "error", err)
		return
	}
	for tap, p := range missing {
		err := g.setDirectLocked(p)
		g.log.Warn("packet filter was deleted by someone else", "table", tap, "restored", err == nil, "error", err)
	}
}

// countDirectLocked adds what the ports' tables have dropped, and what those that are gone
// had.
func (g *Guard) countDirectLocked(to map[Reason]Count) error {
	sum(to, g.direct.past)
	for tap := range g.direct.ports {
		counted, err := g.directCountersLocked(tap)
		if err != nil {
			return err
		}
		sum(to, counted)
	}
	return nil
}

func (g *Guard) directCountersLocked(tap string) (counted map[Reason]Count, err error) {
	err = g.transactLocked(func(c *nftables.Conn) (err error) {
		counted, err = readCounters(c, directTable(tap))
		return err
	})
	return counted, err
}

func sum(to, counts map[Reason]Count) {
	for r, n := range counts {
		to[r] = Count{Packets: to[r].Packets + n.Packets, Bytes: to[r].Bytes + n.Bytes}
	}
}

// checkDirect tells whether macvtaps can be filtered. A network of them has nothing in the
// tables.
func (g *Guard) checkDirect(n vnic.Network) error {
	c, err := nftables.New(nftables.WithNetNSFd(g.netns.FD()))
	if err == nil {
		err = probe(c, forDirect)
	}
	if err != nil {
		return fmt.Errorf("set packet filter of network %s: %w", n.Name, err)
	}
	return nil
}
