package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

const tableName = "brfuse"

// Sizes for the largest batches: thousands of set elements go out in one send.
const (
	bufferBytes = 4 << 20
	// elementsPerMessage keeps a list of elements below the 64 KiB of an attribute.
	elementsPerMessage = 256
)

var (
	bridgeTable = &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	inetTable   = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
)

// The sets of the bridge table. Their keys are a tap's name and an address.
var (
	macSet  = portSet(1, "mac", nftables.TypeEtherAddr)
	ipv4Set = portSet(2, "ipv4", nftables.TypeIPAddr)
	ipv6Set = portSet(3, "ipv6", nftables.TypeIP6Addr)
)

func portSet(id uint32, name string, address nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{
		Table: bridgeTable, ID: id, Name: name, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, address),
	}
}

// bridgesSet has the names of the networks' bridges.
var bridgesSet = &nftables.Set{
	Table: inetTable, ID: 4, Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian,
}

// elements are what ports add to each set and map.
type elements map[*nftables.Set][]nftables.SetElement

func elementsOf(ports ...Port) elements {
	all := elements{}
	add := func(set *nftables.Set, e nftables.SetElement) { all[set] = append(all[set], e) }
	for _, p := range ports {
		add(macSet, element(p.Tap, p.MAC[:]))
		add(ipv6Set, element(p.Tap, p.MAC.LinkLocal().AsSlice()))
		for _, a := range p.Addresses {
			switch {
			case a.Is4():
				add(ipv4Set, element(p.Tap, a.AsSlice()))
			case a != p.MAC.LinkLocal():
				add(ipv6Set, element(p.Tap, a.AsSlice()))
			}
		}
		for _, published := range p.Published {
			add(published.element(p.Tap))
		}
		if p.Limit != (Limit{}) {
			jump := &expr.Verdict{Kind: expr.VerdictJump, Chain: rateChainOf(p.Tap).Name}
			add(ratesMap, nftables.SetElement{Key: ifname(p.Tap), VerdictData: jump})
		}
	}
	return all
}

// element returns the element of a tap and an address.
func element(tap string, address []byte) nftables.SetElement {
	key := append(ifname(tap), address...)
	for len(key)%4 != 0 { // each part of a key fills whole registers
		key = append(key, 0)
	}
	return nftables.SetElement{Key: key}
}

// ifname returns a name as the kernel keeps it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// each calls f for every set with the elements that belong to it, in parts that
// fit a message.
func (e elements) each(f func(*nftables.Set, []nftables.SetElement) error) error {
	for _, set := range []*nftables.Set{macSet, ipv4Set, ipv6Set, at4, at6, any4, any6, ratesMap} {
		for part := range slices.Chunk(e[set], elementsPerMessage) {
			if err := f(set, part); err != nil {
				return fmt.Errorf("set %s: %w", set.Name, err)
			}
		}
	}
	return nil
}

// load reads the ports and networks of an earlier process, and tells whether
// there is any table.
func (g *Guard) load() (found bool, err error) {
	err = g.transactLocked(func(c *nftables.Conn) error {
		for _, from := range []struct {
			table *nftables.Table
			load  func(*nftables.Conn) error
		}{{bridgeTable, g.loadPorts}, {inetTable, g.loadNetworks}} {
			ok, err := exists(c, from.table)
			if err == nil && ok {
				found, err = true, from.load(c)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

func (g *Guard) loadPorts(c *nftables.Conn) error {
	for _, set := range []*nftables.Set{macSet, ipv4Set, ipv6Set} {
		found, err := list(c, set)
		if err != nil {
			return err
		}
		for _, e := range found {
			g.loadElement(set, e.Key)
		}
	}
	for tap, p := range g.ports {
		if p.MAC.IsZero() {
			delete(g.ports, tap)
		}
	}
	if err := g.loadLimits(c); err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	return nil
}

func (g *Guard) loadElement(set *nftables.Set, key []byte) {
	if len(key) != int(set.KeyType.Bytes) {
		return
	}
	tap := unix.ByteSliceToString(key[:unix.IFNAMSIZ])
	p := g.ports[tap]
	p.Tap = tap
	if set == macSet {
		copy(p.MAC[:], key[unix.IFNAMSIZ:])
	} else if a, ok := netip.AddrFromSlice(key[unix.IFNAMSIZ:]); ok && a != p.MAC.LinkLocal() {
		p.Addresses = append(p.Addresses, a)
	}
	g.ports[tap] = p
}

func (g *Guard) loadNetworks(c *nftables.Conn) error {
	bridges, err := list(c, bridgesSet)
	if err != nil {
		return err
	}
	for _, e := range bridges {
		if e.Comment != "" {
			g.networks[e.Comment] = vnic.Network{Name: e.Comment, Bridge: unix.ByteSliceToString(e.Key)}
		}
	}
	rules, err := c.GetRules(inetTable, postrouting)
	if err != nil {
		return fmt.Errorf("read masquerading: %w", err)
	}
	for _, r := range rules {
		n, ok := networkOf(r.UserData)
		if !ok {
			continue
		}
		n.Subnets = append(g.networks[n.Name].Subnets, n.Subnets...)
		g.networks[n.Name] = n
	}
	return g.loadPublished(c)
}

func (g *Guard) loadPublished(c *nftables.Conn) error {
	for _, set := range []*nftables.Set{at4, at6, any4, any6} {
		found, err := list(c, set)
		if err != nil {
			return err
		}
		for _, e := range found {
			p, known := g.ports[e.Comment]
			published, ok := publishedOf(set, e)
			if known && ok {
				p.Published = append(p.Published, published)
				g.ports[e.Comment] = p
			}
		}
	}
	for _, p := range g.ports {
		slices.SortFunc(p.Published, Published.compare)
	}
	return nil
}

// list returns the elements of a set. One that is not there has none: of a table
// that is not as we make it, what it lacks is not allowed.
func list(c *nftables.Conn, set *nftables.Set) ([]nftables.SetElement, error) {
	// The library hides the errno of a failed listing, but not of this one.
	_, err := c.GetSetByName(set.Table, set.Name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	var found []nftables.SetElement
	if err == nil {
		found, err = c.GetSetElements(set)
	}
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set.Name, err)
	}
	return found, nil
}

func exists(c *nftables.Conn, t *nftables.Table) (bool, error) {
	tables, err := c.ListTablesOfFamily(t.Family)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w: %w: load the kernel module nf_tables", err, vnic.ErrUnsupported)
	}
	return slices.ContainsFunc(tables, func(have *nftables.Table) bool { return have.Name == t.Name && have.Family == t.Family }), nil
}

func bigBuffers(c *netlink.Conn) error {
	return errors.Join(c.SetReadBuffer(bufferBytes), c.SetWriteBuffer(bufferBytes))
}
