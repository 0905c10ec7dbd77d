package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// errTruncated is returned when an answer didn't fit into a packet.
var errTruncated = errors.New("answer is truncated")

// outgoing returns the query to an upstream: the client's, with an id of its own, and
// of its EDNS only what is not between two neighbours (RFC 6891, section 6.1.1).
func outgoing(q query) *dns.Msg {
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData
	m.Question = []dns.Question{q.q}
	q.withOPT(m)
	return m
}

// incoming returns an upstream's answer as one for the client.
func incoming(q query, m *dns.Msg) *dns.Msg {
	m.Id, m.Question = q.Id, q.Question
	m.RecursionDesired, m.RecursionAvailable = q.RecursionDesired, true
	extra := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	m.Extra = extra
	return m
}

// one asks one upstream, by UDP, and by TCP when that is too small. An answer that says
// that the upstream can't or won't is an error.
func (u *upstreams) one(ctx context.Context, a netip.AddrPort, out *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	m, err := exchange(ctx, "udp", a, out)
	if errors.Is(err, errTruncated) {
		m, err = exchange(ctx, "tcp", a, out)
	}
	if err != nil {
		return nil, err
	}
	switch m.Rcode {
	case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented:
		return nil, fmt.Errorf("it says %s", dns.RcodeToString[m.Rcode])
	}
	return m, nil
}

// exchange sends a query by a socket of its own and waits for the answer until ctx ends.
func exchange(ctx context.Context, network string, a netip.AddrPort, out *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, a.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := &dns.Conn{Conn: c, UDPSize: dns.DefaultMsgSize}
	if err := conn.WriteMsg(out); err != nil {
		return nil, err
	}
	for {
		b, err := conn.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) && network == "udp" {
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := decode(b, out)
		if err == nil || errors.Is(err, errTruncated) && network == "udp" {
			return m, err
		}
		if network == "tcp" {
			return nil, err
		}
		// By UDP it may be forged; the true one may follow.
	}
}

// decode decodes what may be the answer to a query (RFC 5452, section 9.1). Whatever
// follows a truncated one's question is not looked at.
func decode(b []byte, out *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(b)
	if err != nil && !m.Truncated {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	if !m.Response || m.Id != out.Id || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return nil, errors.New("not the answer to this query")
	}
	q, want := m.Question[0], out.Question[0]
	if q.Qtype != want.Qtype || q.Qclass != want.Qclass || !strings.EqualFold(q.Name, want.Name) {
		return nil, fmt.Errorf("answer to another question, %q", q.Name)
	}
	if m.Truncated {
		return nil, errTruncated
	}
	return m, nil
}
