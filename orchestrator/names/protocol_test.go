package names

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// question returns a query for the name web, changed.
func question(change func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg).SetQuestion("web.blue.brfuse.internal.", dns.TypeA)
	change(m)
	return m
}

func TestRefusals(t *testing.T) {
	r := newBlue(t, Config{Upstreams: nil, ResolvConf: "/nonexistent"})
	r.put(web())
	for _, c := range []struct {
		name  string
		query *dns.Msg
		want  int
	}{
		{"transfer", question(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"incremental transfer", question(func(m *dns.Msg) { m.SetIxfr("blue.brfuse.internal.", 1, "a.", "b.") }), dns.RcodeRefused},
		{"chaos", question(func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}), dns.RcodeRefused},
		{"any class", question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"notify", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"update", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"no question", question(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", question(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"answer within", question(func(m *dns.Msg) { m.Answer = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNULL}}} }), dns.RcodeFormatError},
		{"edns version", question(func(m *dns.Msg) { m.SetEdns0(512, false); m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"edns twice", question(func(m *dns.Msg) { m.SetEdns0(512, false).SetEdns0(512, false) }), dns.RcodeFormatError},
		{"edns as type", question(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }), dns.RcodeFormatError},
		{"nobody to forward to", question(func(m *dns.Msg) { m.Question[0].Name = "example.com." }), dns.RcodeServerFailure},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			t.Run(c.name+" "+proto, func(t *testing.T) {
				r := &rig{Server: r.Server, t: t, at: r.at}
				m := r.send(c.query, proto)
				assert.Equal(t, c.want, m.Rcode, m)
				assert.Empty(t, m.Answer)
				assert.Equal(t, c.query.IsEdns0() != nil, m.IsEdns0() != nil, "OPT answers OPT")
			})
		}
	}
	q := r.Stats()["blue"].Queries
	assert.Equal(t, map[string]uint64{"REFUSED": 8, "NOTIMP": 4, "FORMERR": 10, "BADSIG": 2, "SERVFAIL": 2}, q)
}

// replicas adds so many of a service.
func (r *rig) replicas(n int) {
	r.t.Helper()
	for i := range n {
		r.put(Record{
			ID: vnic.ID(fmt.Sprintf("%010x", i)), Names: []string{"web"}, Ready: true,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 9, byte(1 + i/200), byte(1 + i%200)})},
			Ports:     []Port{{Number: 80, Protocol: vnic.TCP}},
		})
	}
}

func TestSizes(t *testing.T) {
	r := newBlue(t, Config{})
	r.replicas(60)
	for _, c := range []struct {
		name      string
		edns      uint16 // 0: without
		proto     string
		most      int
		truncated bool
	}{
		{"plain", 0, "udp", 512, true},
		{"edns of less than the least", 100, "udp", 512, true},
		{"edns", 800, "udp", 800, true},
		{"edns of more than fits a packet", 4096, "udp", 1232, false},
		{"tcp", 0, "tcp", 65535, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rig{Server: r.Server, t: t, at: r.at}
			q := question(func(m *dns.Msg) {
				if c.edns != 0 {
					m.SetEdns0(c.edns, true)
				}
			})
			m := r.send(q, c.proto)
			m.Compress = true
			assert.LessOrEqual(t, m.Len(), c.most)
			assert.Equal(t, c.truncated, m.Truncated)
			assert.Equal(t, c.truncated, len(m.Answer) < 60)
			if c.edns != 0 {
				require.NotNil(t, m.IsEdns0())
				assert.Equal(t, []any{uint16(udpSize), true}, []any{m.IsEdns0().UDPSize(), m.IsEdns0().Do()})
			}
		})
	}
	assert.Equal(t, uint64(3), r.Stats()["blue"].Truncated)
}

// What is additional is left out without a word (RFC 2181, section 9).
func TestAdditionalRecordsGoFirst(t *testing.T) {
	r := newBlue(t, Config{})
	r.replicas(7)
	q := func() *dns.Msg { return new(dns.Msg).SetQuestion("_80._tcp.web.blue.brfuse.internal.", dns.TypeSRV) }
	m := r.send(q(), "udp")
	assert.Equal(t, []any{false, 7, 0}, []any{m.Truncated, len(m.Answer), len(m.Extra)})
	m = r.send(q(), "tcp")
	assert.Equal(t, []any{false, 7, 7}, []any{m.Truncated, len(m.Answer), len(m.Extra)})
}

// Packets and connections of other networks get no answer, and reach nothing.
func TestForeignClients(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	b, err := question(func(*dns.Msg) {}).Pack()
	require.NoError(t, err)

	out, err := from("127.8.0.7", "udp").Dialer.DialContext(t.Context(), "udp", r.address("blue"))
	require.NoError(t, err)
	defer out.Close()
	_, err = out.Write(b)
	require.NoError(t, err)

	stream, err := from("127.8.0.7", "tcp").Dialer.DialContext(t.Context(), "tcp", r.address("blue"))
	require.NoError(t, err)
	defer stream.Close()
	n, err := io.Copy(io.Discard, stream)
	require.NoError(t, err, "closed without a word")
	assert.Zero(t, n)

	// The packet was read before this one.
	require.Equal(t, dns.RcodeSuccess, r.ask("web.blue.brfuse.internal.", dns.TypeA).Rcode)
	s := r.Stats()["blue"]
	assert.Equal(t, uint64(2), s.Foreign)
	assert.Equal(t, map[string]uint64{"NOERROR": 1}, s.Queries)
}

func TestOneClientsConnections(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	var open []net.Conn
	dial := func(client string) net.Conn {
		c, err := from(client, "tcp").Dialer.DialContext(t.Context(), "tcp", r.address("blue"))
		require.NoError(t, err)
		open = append(open, c)
		return c
	}
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range maxConnsPerClient {
		dial("127.9.0.7")
	}
	n, err := io.Copy(io.Discard, dial("127.9.0.7"))
	require.NoError(t, err, "closed without a word")
	assert.Zero(t, n)
	assert.Equal(t, uint64(1), r.Stats()["blue"].Busy)

	m, _, err := from("127.9.0.8", "tcp").ExchangeContext(t.Context(), question(func(*dns.Msg) {}), r.address("blue"))
	require.NoError(t, err)
	assert.Len(t, m.Answer, 1, "another client isn't kept out")
}

// Several queries may come over one connection (RFC 7766, section 6.2.1).
func TestConnectionIsReused(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	c, err := from("127.9.0.7", "tcp").DialContext(t.Context(), r.address("blue"))
	require.NoError(t, err)
	defer c.Close()
	for range 3 {
		q := question(func(*dns.Msg) {})
		require.NoError(t, c.WriteMsg(q))
		m, err := c.ReadMsg()
		require.NoError(t, err)
		assert.Equal(t, q.Id, m.Id)
		assert.Len(t, m.Answer, 1)
	}
}

// What is no message gets no answer, or FORMERR, and stops nothing.
func TestMalformed(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	c, err := from("127.9.0.7", "udp").Dialer.DialContext(t.Context(), "udp", r.address("blue"))
	require.NoError(t, err)
	defer c.Close()
	answer := question(func(m *dns.Msg) { m.Response = true })
	b, err := answer.Pack()
	require.NoError(t, err)
	for _, m := range [][]byte{nil, {1, 2, 3}, b} {
		_, err := c.Write(m)
		require.NoError(t, err)
	}
	require.Equal(t, dns.RcodeSuccess, r.ask("web.blue.brfuse.internal.", dns.TypeA).Rcode)
	assert.Equal(t, uint64(3), r.Stats()["blue"].Malformed)
}
