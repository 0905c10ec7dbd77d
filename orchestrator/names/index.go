package names

import "sync/atomic"

// kind is what a record is at a name.
type kind int

const (
	host    kind = iota // one of those of the name
	replica             // the one whose id the name is
	service             // one that has the port of the name
	pointer             // one that has the address of the name
	kinds
)

// member is an entry at a name.
type member struct {
	*entry
	kind kind
	name string
	port uint16 // of a service
	at   int    // its index in the node's list of its kind
}

// node is a name that exists: one of an entry, or above one.
type node struct {
	refs    int // entries' names at it and below
	members [kinds][]*member
	turns   [3]atomic.Uint32 // where the next answer starts; see turnOf
}

// insert makes the names of e exist, and shows it at them. z is locked.
func (z *zone) insert(e *entry) {
	z.left += e.left
	for _, p := range e.places {
		n := z.refer(p)
		if !e.record.Ready && p.kind != pointer {
			continue
		}
		m := &member{entry: e, kind: p.kind, name: p.name, port: p.port, at: len(n.members[p.kind])}
		n.members[p.kind] = append(n.members[p.kind], m)
		e.members = append(e.members, m)
	}
}

// refer counts a name at its node and at those above, to the apex; it returns its node.
func (z *zone) refer(p place) *node {
	for name := p.name; ; name = parent(name) {
		n := z.nodes[name]
		if n == nil {
			n = &node{}
			z.nodes[name] = n
		}
		n.refs++
		if name == p.apex {
			return z.nodes[p.name]
		}
	}
}

// remove undoes insert: the last of a list takes the place of the one that goes. z is locked.
func (z *zone) remove(e *entry) {
	z.left -= e.left
	for _, m := range e.members {
		n := z.nodes[m.name]
		list := n.members[m.kind]
		last := list[len(list)-1]
		list[m.at], last.at = last, m.at
		list[len(list)-1] = nil
		n.members[m.kind] = list[:len(list)-1]
	}
	for _, p := range e.places {
		for name := p.name; ; name = parent(name) {
			n := z.nodes[name]
			if n.refs--; n.refs == 0 {
				delete(z.nodes, name)
			}
			if name == p.apex {
				break
			}
		}
	}
}
