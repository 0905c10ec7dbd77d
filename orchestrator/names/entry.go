package names

import (
	"net/netip"
	"slices"
)

// place is where an entry belongs.
type place struct {
	kind kind
	name string
	apex string // of the name's zone
	port uint16
}

// entry is a record with the names that it has in the zone.
type entry struct {
	record    Record
	addresses []netip.Addr // the record's, those that are valid
	first     string       // what they resolve to
	target    string       // the name by its id
	places    []place
	members   []*member // those places where it is shown
	left      int       // names that can't be served
}

// plan says which names a record has.
func (z *zone) plan(r Record) *entry {
	e := &entry{record: r, target: string(r.ID) + "." + z.apex}
	for _, a := range r.Addresses {
		if a.IsValid() {
			e.addresses = append(e.addresses, a.Unmap().WithZone(""))
		}
	}
	e.add(place{kind: replica, name: e.target, apex: z.apex})
	for _, name := range r.Names {
		label, err := Label(name)
		full := label + "." + z.apex
		if err != nil || len(full) > maxName {
			e.left++
			continue
		}
		if e.first == "" {
			e.first = full
		}
		e.add(place{kind: host, name: full, apex: z.apex})
		z.services(e, full)
	}
	if e.first == "" {
		e.first = e.target
	}
	for _, p := range z.pointers(e.addresses) {
		e.add(p)
	}
	return e
}

// services adds the ports of e at one of its names.
func (z *zone) services(e *entry, name string) {
	for _, p := range e.record.Ports {
		labels, all := p.labels()
		if !all {
			e.left++
		}
		for _, l := range labels {
			full := l + "." + name
			if len(full) > maxName {
				e.left++
				continue
			}
			e.add(place{kind: service, name: full, apex: z.apex, port: p.Number})
		}
	}
}

// add adds a place that e doesn't have yet.
func (e *entry) add(p place) {
	if !slices.Contains(e.places, p) {
		e.places = append(e.places, p)
	}
}

// pointers returns the reverse names of those addresses that are in the subnets.
func (z *zone) pointers(addresses []netip.Addr) []place {
	var ps []place
	for _, a := range addresses {
		if subnet, ok := z.network.Subnet(a); ok {
			ps = append(ps, place{
				kind: pointer,
				name: reverseName(netip.PrefixFrom(a, a.BitLen())),
				apex: reverseApex(subnet, a),
			})
		}
	}
	return ps
}
