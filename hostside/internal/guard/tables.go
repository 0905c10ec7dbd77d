package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
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

// elements are what a port adds to each set.
type elements struct{ mac, ipv4, ipv6 []nftables.SetElement }

func elementsOf(ports ...Port) elements {
	var e elements
	for _, p := range ports {
		e.mac = append(e.mac, element(p.Tap, p.MAC[:]))
		e.ipv6 = append(e.ipv6, element(p.Tap, p.MAC.LinkLocal().AsSlice()))
		for _, a := range p.Addresses {
			switch {
			case a.Is4():
				e.ipv4 = append(e.ipv4, element(p.Tap, a.AsSlice()))
			case a != p.MAC.LinkLocal():
				e.ipv6 = append(e.ipv6, element(p.Tap, a.AsSlice()))
			}
		}
	}
	return e
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
	for _, s := range []struct {
		set  *nftables.Set
		list []nftables.SetElement
	}{{macSet, e.mac}, {ipv4Set, e.ipv4}, {ipv6Set, e.ipv6}} {
		for part := range slices.Chunk(s.list, elementsPerMessage) {
			if err := f(s.set, part); err != nil {
				return fmt.Errorf("set %s: %w", s.set.Name, err)
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
		list, err := c.GetSetElements(set)
		if errors.Is(err, unix.ENOENT) {
			continue // a table that is not as we make it: what it lacks is not allowed
		}
		if err != nil {
			return fmt.Errorf("read set %s: %w", set.Name, err)
		}
		for _, e := range list {
			g.loadElement(set, e.Key)
		}
	}
	for tap, p := range g.ports {
		if p.MAC.IsZero() {
			delete(g.ports, tap)
		}
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
	return nil
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
