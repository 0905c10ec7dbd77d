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

// Sizes for the largest batches: thousands of set elements go out in one send, and
// those of services may be hundreds of thousands. They bound what is under way, and
// take no memory of their own.
const (
	bufferBytes = 4 << 20
	sendBytes   = 64 << 20
	// elementsPerMessage keeps a list of elements below the 64 KiB of an attribute.
	elementsPerMessage = 256
)

var (
	bridgeTable = &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	inetTable   = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
)

// The sets of the bridge table. Their keys are a tap's name, its MAC and, but for the
// first, an address of its own, so that one lookup does for most packets.
var (
	macSet  = portSet(1, "mac", nftables.TypeEtherAddr)
	ipv4Set = portSet(2, "ipv4", nftables.TypeEtherAddr, nftables.TypeIPAddr)
	ipv6Set = portSet(3, "ipv6", nftables.TypeEtherAddr, nftables.TypeIP6Addr)
	openSet = portSet(40, "open", nftables.TypeEtherAddr) // of those that may have any address
)

func portSet(id uint32, name string, behind ...nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{
		Table: bridgeTable, ID: id, Name: name, Concatenation: true,
		KeyType: nftables.MustConcatSetType(append([]nftables.SetDatatype{nftables.TypeIFName}, behind...)...),
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
		add(macSet, p.element())
		if p.Open {
			add(openSet, p.element())
		} else {
			p.eachAddress(add)
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

// eachAddress adds the addresses that the port may have.
func (p Port) eachAddress(add func(*nftables.Set, nftables.SetElement)) {
	add(ipv6Set, p.element(p.MAC.LinkLocal().AsSlice()...))
	for _, a := range p.Addresses {
		switch {
		case a.Is4():
			add(ipv4Set, p.element(a.AsSlice()...))
		case a != p.MAC.LinkLocal():
			add(ipv6Set, p.element(a.AsSlice()...))
		}
	}
}

// element returns the element of a port and an address.
func (p Port) element(address ...byte) nftables.SetElement {
	key := make([]byte, beforeIP, beforeIP+len(address))
	copy(key, p.Tap)
	copy(key[unix.IFNAMSIZ:], p.MAC[:])
	return nftables.SetElement{Key: append(key, address...)}
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
	sets := []*nftables.Set{macSet, openSet, ipv4Set, ipv6Set, at4, at6, any4, any6, ratesMap}
	for _, m := range serviceMaps {
		sets = append(sets, m.sets()...)
	}
	for _, set := range sets {
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
	for _, set := range []*nftables.Set{macSet, openSet, ipv4Set, ipv6Set} {
		found, err := list(c, set)
		if err != nil {
			return err
		}
		for _, e := range found {
			loadElement(g.ports, set, e.Key)
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

// loadElement reads a key. Those of before a MAC was in them are a tap and an address.
func loadElement(ports map[string]Port, set *nftables.Set, key []byte) {
	address := int(set.KeyType.Bytes) - beforeIP
	if set.Name == macSet.Name || set.Name == openSet.Name {
		address = macBytes
	}
	if len(key) != int(set.KeyType.Bytes) && len(key) != unix.IFNAMSIZ+address {
		return
	}
	tap := unix.ByteSliceToString(key[:unix.IFNAMSIZ])
	p := ports[tap]
	p.Tap = tap
	if set.Name == macSet.Name {
		copy(p.MAC[:], key[unix.IFNAMSIZ:])
	} else if set.Name == openSet.Name {
		p.Open = true
	} else if a, ok := netip.AddrFromSlice(key[len(key)-address:]); ok && a != p.MAC.LinkLocal() {
		p.Addresses = append(p.Addresses, a)
	}
	ports[tap] = p
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
	return errors.Join(g.loadPublished(c), g.loadServices(c))
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
	return errors.Join(c.SetReadBuffer(bufferBytes), c.SetWriteBuffer(sendBytes))
}
