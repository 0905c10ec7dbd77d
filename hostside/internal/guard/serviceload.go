package guard

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

const headBytes = 8 // of what [serviceKey.head] returns

// loadServices reads the services of an earlier process. What the maps have beside is
// not a service's, and goes when the tables are put right.
func (g *Guard) loadServices(c *nftables.Conn) error {
	for _, m := range serviceMaps {
		found, err := listServices(c, m, m.services)
		if err != nil {
			return err
		}
		indexed := map[serviceKey]map[uint32]netip.AddrPort{}
		for _, e := range found {
			indexed[e.key] = map[uint32]netip.AddrPort{}
			g.services[e.key] = served{name: e.Comment, sources: map[netip.Addr]netip.Addr{}}
		}
		if found, err = listServices(c, m, m.targets); err != nil {
			return err
		}
		for _, e := range found {
			if to, ok := addrPortOf(e.Val); ok && indexed[e.key] != nil {
				indexed[e.key][binaryutil.NativeEndian.Uint32(e.rest)] = to
			}
		}
		if found, err = listServices(c, m, m.sources); err != nil {
			return err
		}
		for _, e := range found {
			target, ok := netip.AddrFromSlice(e.rest)
			source, ok2 := netip.AddrFromSlice(e.Val)
			if ok && ok2 && indexed[e.key] != nil {
				g.services[e.key].sources[target] = source
			}
		}
		for key, targets := range indexed {
			g.loadTargets(key, targets)
		}
	}
	return nil
}

// loadTargets puts the targets of a service in their order.
func (g *Guard) loadTargets(key serviceKey, targets map[uint32]netip.AddrPort) {
	s := g.services[key]
	for _, i := range slices.Sorted(maps.Keys(targets)) {
		s.targets = append(s.targets, targets[i])
	}
	if g.services[key] = s; len(targets) == 0 {
		delete(g.services, key)
	}
}

// serviceElement is an element of a map of services, with its key in two parts.
type serviceElement struct {
	nftables.SetElement
	key  serviceKey
	rest []byte
}

func listServices(c *nftables.Conn, m familyMaps, set *nftables.Set) ([]serviceElement, error) {
	found, err := list(c, set)
	if err != nil {
		return nil, err
	}
	all := make([]serviceElement, 0, len(found))
	for _, e := range found {
		if len(e.Key) == int(set.KeyType.Bytes) {
			key := serviceKey{m.v6, e.Key[0], binary.BigEndian.Uint16(e.Key[4:])}
			all = append(all, serviceElement{e, key, e.Key[headBytes:]})
		}
	}
	return all, nil
}

// addrPortOf reads what [elements.addService] wrote of a target.
func addrPortOf(val []byte) (netip.AddrPort, bool) {
	const portBytes = 4 // filled up
	if len(val) < portBytes {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice(val[:len(val)-portBytes])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(val[len(val)-portBytes:])), ok
}
