package names

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/brfuse/brfuse/vnic"
)

// Limits of the connections by TCP of a network, and of one client.
const (
	maxConns          = 256
	maxConnsPerClient = 16
)

// served is a network that is answered.
type served struct {
	network   vnic.Network
	zone      *zone
	upstreams *upstreams
	stats     counters
	forwards  *gate
	conns     *gate
	log       *slog.Logger
	running   []*running
	cancel    context.CancelFunc // ends what is being forwarded
}

// own says whether an address is one of the network's.
func (n *served) own(a netip.Addr) bool {
	_, ok := n.network.Subnet(a)
	return ok
}

// answer answers one message. Its client has been checked.
func (n *served) answer(ctx context.Context, w dns.ResponseWriter, msg *dns.Msg) {
	start := time.Now()
	q, rcode := read(msg, w.RemoteAddr())
	m, times := q.reply(rcode), &n.stats.own
	if rcode == dns.RcodeSuccess {
		if apex, ok := n.zone.authority(q.q, q.name); ok {
			m = n.authoritative(q, apex)
		} else {
			m, times = n.forward(ctx, q), &n.stats.outside
		}
	}
	m, b, err := q.pack(m)
	if err != nil {
		n.log.Error("encode an answer", "name", q.name, "err", err)
		return
	}
	n.stats.answered(m.Rcode)
	if m.Truncated {
		n.stats.truncated.Add(1)
	}
	times.observe(time.Since(start))
	if _, err := w.Write(b); err != nil {
		n.log.Debug("answer a query", "client", q.client, "err", err)
	}
}

func (n *served) authoritative(q query, apex string) *dns.Msg {
	f := n.zone.lookup(q.q, q.name, apex)
	m := q.reply(f.rcode)
	m.Authoritative = true
	m.Answer, m.Ns, m.Extra = f.answer, f.ns, f.extra
	return m
}

// forward asks the upstreams; without an answer of theirs it is SERVFAIL.
func (n *served) forward(ctx context.Context, q query) *dns.Msg {
	if q.q.Qtype == dns.TypeANY && !q.tcp {
		m := q.reply(dns.RcodeSuccess)
		m.Truncated = true // RFC 8482, section 4.4
		return m
	}
	if !n.forwards.enter(q.client) {
		n.stats.busy.Add(1)
		return q.reply(dns.RcodeServerFailure)
	}
	defer n.forwards.leave(q.client)
	n.stats.forwarded.Add(1)
	m, failures, err := n.upstreams.ask(ctx, q)
	n.stats.upstreamFailures.Add(uint64(failures))
	if err != nil {
		n.stats.forwardFailures.Add(1)
		n.log.Debug("forward a query", "name", q.name, "err", err)
		return q.reply(dns.RcodeServerFailure)
	}
	return m
}

// accept is the first look at a message (a dns.MsgAcceptFunc).
func (n *served) accept(h dns.Header) dns.MsgAcceptAction {
	action := dns.DefaultMsgAcceptFunc(h)
	if opcode := int(h.Bits>>11) & 0xf; action == dns.MsgAccept && opcode != dns.OpcodeQuery {
		action = dns.MsgRejectNotImplemented
	}
	switch action {
	case dns.MsgIgnore: // an answer
		n.stats.malformed.Add(1)
	case dns.MsgReject:
		n.stats.malformed.Add(1)
		n.stats.answered(dns.RcodeFormatError)
	case dns.MsgRejectNotImplemented:
		n.stats.answered(dns.RcodeNotImplemented)
	}
	return action
}

// ownReader drops packets from outside of the network.
type ownReader struct {
	dns.Reader
	n *served
}

func (r ownReader) ReadUDP(c *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		b, s, err := r.Reader.ReadUDP(c, timeout)
		if err != nil || r.n.own(address(s.RemoteAddr())) {
			return b, s, err
		}
		r.n.stats.foreign.Add(1)
	}
}
