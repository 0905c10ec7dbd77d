package names

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// udpSize is the largest answer by UDP: with IPv6 and a header of an overlay it fits
// into one packet anywhere (the value agreed on at DNS Flag Day 2020).
const udpSize = 1232

// query is a query of a client.
type query struct {
	*dns.Msg
	q      dns.Question
	name   string // canonical form of q's
	client netip.Addr
	tcp    bool
	opt    *dns.OPT
}

// read takes a message apart; rcode is what is wrong with it.
func read(m *dns.Msg, from net.Addr) (q query, rcode int) {
	q = query{Msg: m, client: address(from), opt: m.IsEdns0()}
	_, q.tcp = from.(*net.TCPAddr)
	if len(m.Question) != 1 || len(m.Answer) > 0 {
		return q, dns.RcodeFormatError
	}
	opts := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	q.q = m.Question[0]
	q.name = dns.CanonicalName(q.q.Name)
	switch {
	case opts > 1 || q.q.Qtype == dns.TypeOPT:
		return q, dns.RcodeFormatError
	case q.opt != nil && q.opt.Version() != 0:
		return q, dns.RcodeBadVers // RFC 6891, section 6.1.3
	case q.q.Qclass != dns.ClassINET || q.q.Qtype == dns.TypeAXFR || q.q.Qtype == dns.TypeIXFR:
		return q, dns.RcodeRefused
	}
	return q, dns.RcodeSuccess
}

// size is how long an answer may be.
func (q query) size() int {
	switch {
	case q.tcp:
		return dns.MaxMsgSize
	case q.opt == nil:
		return dns.MinMsgSize
	}
	return min(max(int(q.opt.UDPSize()), dns.MinMsgSize), udpSize)
}

// reply returns an answer without records.
func (q query) reply(rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(q.Msg, rcode)
	m.RecursionAvailable = true
	return m
}

// pack makes an answer fit and encodes it. What is additional goes first, and is
// not missed (RFC 2181, section 9). The answer is m, or SERVFAIL when m can't be encoded.
func (q query) pack(m *dns.Msg) (*dns.Msg, []byte, error) {
	q.withOPT(m)
	m.Compress = true
	if m.Authoritative && m.Len() > q.size() {
		m.Extra = nil
		q.withOPT(m)
	}
	m.Truncate(q.size())
	m.Compress = true
	b, err := m.Pack()
	if err == nil {
		return m, b, nil
	}
	m = q.reply(dns.RcodeServerFailure)
	q.withOPT(m)
	b, err = m.Pack()
	return m, b, err
}

// withOPT adds the OPT record that answers the client's (RFC 6891, section 6.1.1).
func (q query) withOPT(m *dns.Msg) {
	if q.opt != nil {
		m.SetEdns0(udpSize, q.opt.Do())
	}
}
