package names

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// sink is a client that keeps what it is answered.
type sink struct {
	dns.ResponseWriter
	from net.Addr
	got  []byte
}

func (s *sink) RemoteAddr() net.Addr { return s.from }

func (s *sink) Write(b []byte) (int, error) {
	s.got = b
	return len(b), nil
}

func seed(f *testing.F, m *dns.Msg) {
	f.Helper()
	b, err := m.Pack()
	require.NoError(f, err)
	f.Add(b)
}

// FuzzQuery: whatever can be decoded gets one answer to its question that fits.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"web.blue.brfuse.internal.", "_80._tcp.web.blue.brfuse.internal.", "11.0.9.127.in-addr.arpa.", "1.ip6.arpa.", `a\.b.`, "."} {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY, dns.TypeAXFR, dns.TypeOPT} {
			seed(f, new(dns.Msg).SetQuestion(name, rrtype).SetEdns0(700, true))
		}
	}
	f.Add(make([]byte, 12))
	s := New(Config{ResolvConf: "/nonexistent", Listen: (&rig{at: map[string]string{}}).listen})
	require.NoError(f, s.Serve(f.Context(), blue()))
	f.Cleanup(s.Close)
	require.NoError(f, s.Replace("blue", []Record{web(), twin(), db()}))
	n, err := s.get("blue")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		if len(q.Question) > 0 {
			name := dns.CanonicalName(q.Question[0].Name)
			require.Equal(t, dns.IsSubDomain(n.zone.apex, name), below(name, n.zone.apex), name)
		}
		for _, from := range []net.Addr{&net.UDPAddr{IP: net.IPv4(127, 9, 0, 7)}, &net.TCPAddr{IP: net.IPv4(127, 9, 0, 7)}} {
			w := &sink{from: from}
			n.answer(t.Context(), w, q.Copy())
			m := new(dns.Msg)
			require.NoError(t, m.Unpack(w.got))
			require.True(t, m.Response)
			require.Equal(t, q.Id, m.Id)
			if len(q.Question) > 0 {
				require.Equal(t, q.Question[:1], m.Question)
			}
			if from.Network() == "udp" {
				require.LessOrEqual(t, len(w.got), udpSize)
			}
		}
	})
}

// FuzzAnswer: whatever an upstream says, the client gets an answer to its question that fits.
func FuzzAnswer(f *testing.F) {
	client := new(dns.Msg).SetQuestion("WWW.example.com.", dns.TypeA)
	for _, h := range []dns.HandlerFunc{says, fails(dns.RcodeNameError)} {
		w := &packing{sink: &sink{}}
		h(w, client)
		f.Add(w.got)
		f.Add(w.got[:len(w.got)-2])
	}
	seed(f, new(dns.Msg).SetReply(client).SetEdns0(4096, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 {
			return
		}
		q, rcode := read(client.Copy(), &net.UDPAddr{IP: net.IPv4(127, 9, 0, 7)})
		require.Zero(t, rcode)
		out := outgoing(q)
		out.Id = binary.BigEndian.Uint16(b)
		m, err := decode(b, out)
		if err != nil {
			require.Nil(t, m)
			return
		}
		_, packed, err := q.pack(incoming(q, m))
		require.NoError(t, err)
		require.LessOrEqual(t, len(packed), dns.MinMsgSize)
		got := new(dns.Msg)
		require.NoError(t, got.Unpack(packed))
		require.Equal(t, client.Question, got.Question)
		require.Equal(t, client.Id, got.Id)
		require.Nil(t, got.IsEdns0())
	})
}

// packing is a sink for handlers that don't pack.
type packing struct{ *sink }

func (p *packing) WriteMsg(m *dns.Msg) error {
	b, err := m.Pack()
	p.got = b
	return err
}
