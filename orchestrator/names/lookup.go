package names

import (
	"iter"
	"net/netip"

	"github.com/miekg/dns"
)

// maxAnswer is how many records an answer has at most: with names of usual length far
// from the 64 KiB of a message.
const maxAnswer = 256

// found is the content of an answer.
type found struct {
	rcode             int
	answer, ns, extra []dns.RR
}

// lookup answers a question for a name in the zone of that apex, name being the
// canonical form of the question's. What it returns has the question's own name.
func (z *zone) lookup(q dns.Question, name, apex string) found {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if !z.exists(name, apex) {
		return found{rcode: dns.RcodeNameError, ns: []dns.RR{z.soa(apex, apex)}}
	}
	var f found
	switch n := z.nodes[name]; q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		f.answer = z.addresses(q, n)
	case dns.TypeSRV:
		z.srv(q, n, &f)
	case dns.TypePTR:
		f.answer = z.ptr(q, n)
	case dns.TypeSOA:
		if name == apex {
			f.answer = []dns.RR{z.soa(q.Name, apex)}
		}
	case dns.TypeNS:
		if name == apex {
			f.answer = []dns.RR{&dns.NS{Hdr: z.header(q.Name, dns.TypeNS), Ns: z.apex}}
			f.extra = z.both(z.apex, z.network.Gateways)
		}
	case dns.TypeANY:
		f.answer = []dns.RR{&dns.HINFO{Hdr: z.header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	if len(f.answer) == 0 {
		f.ns = []dns.RR{z.soa(apex, apex)}
	}
	return f
}

func (z *zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}

// soa returns the SOA of a zone. Its last number is the TTL of negative answers
// (RFC 2308, section 4). There are no secondaries that the others are for.
func (z *zone) soa(name, apex string) dns.RR {
	return &dns.SOA{
		Hdr: z.header(name, dns.TypeSOA), Ns: z.apex, Mbox: "hostmaster." + apex,
		Serial: z.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl,
	}
}

// turnOf returns the counter of a type: those of A and AAAA are two, as clients ask for
// both in turn, and with one counter would get every other record only.
func (n *node) turnOf(rrtype uint16) uint32 {
	switch rrtype {
	case dns.TypeA:
		return n.turns[0].Add(1) - 1
	case dns.TypeAAAA:
		return n.turns[1].Add(1) - 1
	}
	return n.turns[2].Add(1) - 1
}

// inTurn yields the members of a list, starting at the next one.
func (n *node) inTurn(k kind, rrtype uint16) iter.Seq[*member] {
	return func(yield func(*member) bool) {
		list := n.members[k]
		if len(list) == 0 {
			return
		}
		start := int(n.turnOf(rrtype) % uint32(len(list)))
		for i := range list {
			if !yield(list[(start+i)%len(list)]) {
				return
			}
		}
	}
}

// addresses returns the A or AAAA records of a name: of the record whose id it is,
// else of all that have the name.
func (z *zone) addresses(q dns.Question, n *node) []dns.RR {
	if n == nil {
		return nil
	}
	k := host
	if len(n.members[replica]) > 0 {
		k = replica
	}
	var rrs []dns.RR
	for m := range n.inTurn(k, q.Qtype) {
		for _, a := range m.addresses {
			if a.Is4() == (q.Qtype == dns.TypeA) && len(rrs) < maxAnswer {
				rrs = append(rrs, z.address(q.Name, a))
			}
		}
		if len(rrs) == maxAnswer {
			break
		}
	}
	return rrs
}

func (z *zone) address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: z.header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

func (z *zone) both(name string, addresses []netip.Addr) []dns.RR {
	rrs := make([]dns.RR, 0, len(addresses))
	for _, a := range addresses {
		rrs = append(rrs, z.address(name, a))
	}
	return rrs
}

// srv adds the SRV records of a port (RFC 2782), and the addresses of their targets.
func (z *zone) srv(q dns.Question, n *node, f *found) {
	if n == nil {
		return
	}
	for m := range n.inTurn(service, dns.TypeSRV) {
		f.answer = append(f.answer, &dns.SRV{
			Hdr: z.header(q.Name, dns.TypeSRV), Weight: 1, Port: m.port, Target: m.target,
		})
		f.extra = append(f.extra, z.both(m.target, m.addresses)...)
		if len(f.answer) == maxAnswer {
			return
		}
	}
}

func (z *zone) ptr(q dns.Question, n *node) []dns.RR {
	if n == nil {
		return nil
	}
	var rrs []dns.RR
	for _, m := range n.members[pointer] {
		rrs = append(rrs, &dns.PTR{Hdr: z.header(q.Name, dns.TypePTR), Ptr: m.first})
		if len(rrs) == maxAnswer {
			break
		}
	}
	return rrs
}
