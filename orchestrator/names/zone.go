package names

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/brfuse/brfuse/vnic"
)

// zone has the names of one network. It is safe for concurrent use.
type zone struct {
	network vnic.Network
	domain  string // canonical, as apex
	apex    string
	ttl     uint32

	mu      sync.RWMutex // guards what follows
	serial  uint32
	entries map[vnic.ID]*entry
	nodes   map[string]*node
	left    int // names that can't be served, of all entries
}

// newZone returns the zone of a network, with its gateways at the apex.
func newZone(c Config, n vnic.Network) (*zone, error) {
	label, err := Label(n.Name)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	domain := dns.CanonicalName(c.Domain)
	apex := label + "." + domain
	if _, ok := dns.IsDomainName(apex); !ok || domain == "." || len(apex) > maxName {
		return nil, fmt.Errorf("network %s: %q is no name of a zone; change the domain: %w", n.Name, apex, vnic.ErrInvalid)
	}
	z := &zone{
		network: n, domain: domain, apex: apex,
		ttl:     uint32(c.TTL / time.Second),
		serial:  uint32(time.Now().Unix()), // larger than that of the last time (RFC 1982)
		entries: map[vnic.ID]*entry{},
		nodes:   map[string]*node{},
	}
	e := &entry{record: Record{Ready: true}, addresses: n.Gateways, first: apex, target: apex}
	e.places = append(z.pointers(n.Gateways), place{kind: host, name: apex, apex: apex})
	z.insert(e)
	return z, nil
}

// put adds a record, or replaces the one of that id; it returns how many of its names
// can't be served, and whether anything changed.
func (z *zone) put(r Record) (left int, changed bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	old := z.entries[r.ID]
	if old != nil && old.record.equal(r) {
		return old.left, false
	}
	if old != nil {
		z.remove(old)
	}
	e := z.plan(r.clone())
	z.entries[r.ID] = e
	z.insert(e)
	z.serial++
	return e.left, true
}

func (z *zone) drop(id vnic.ID) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if e := z.entries[id]; e != nil {
		delete(z.entries, id)
		z.remove(e)
		z.serial++
	}
}

// size returns how many records there are, and how many of their names are left out.
func (z *zone) size() (records, left int) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return len(z.entries), z.left
}

// keep drops all entries but those.
func (z *zone) keep(ids map[vnic.ID]bool) {
	z.mu.RLock()
	var gone []vnic.ID
	for id := range z.entries {
		if !ids[id] {
			gone = append(gone, id)
		}
	}
	z.mu.RUnlock()
	for _, id := range gone {
		z.drop(id)
	}
}

// authority returns the apex of the zone that a canonical name is in, if it is one
// of those answered here.
func (z *zone) authority(q dns.Question, name string) (string, bool) {
	switch {
	case q.Qtype == dns.TypeDS && name == z.apex:
		return z.domain, true // of the parent (RFC 4035, section 3.1.4.1)
	case below(name, z.apex):
		return z.apex, true
	case below(name, z.domain):
		return z.domain, true
	}
	p, ok := reversePrefix(name)
	if !ok {
		return "", false
	}
	subnet, ok := z.network.Subnet(p.Addr())
	if !ok || p.Bits() < subnet.Bits() {
		return "", false
	}
	return reverseApex(subnet, p.Addr()), true
}

// exists says whether there is such a name, or one below it. z is locked.
func (z *zone) exists(name, apex string) bool {
	return name == apex || z.nodes[name] != nil || apex == z.domain && strings.HasSuffix(z.apex, "."+name)
}
