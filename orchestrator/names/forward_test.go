package names

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const outside = "www.Example.com."

func TestForwardedQueries(t *testing.T) {
	var mu sync.Mutex
	var seen []*dns.Msg
	ports := map[string]bool{}
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		seen = append(seen, q.Copy())
		ports[w.RemoteAddr().String()] = true
		mu.Unlock()
		says(w, q)
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}})
	for range 3 {
		q := new(dns.Msg).SetQuestion(outside, dns.TypeA)
		q.Id, q.CheckingDisabled = 7, true
		q.SetEdns0(4096, true)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
		m := r.send(q, "udp")
		assert.Equal(t, uint16(7), m.Id)
		assert.Equal(t, outside, m.Question[0].Name)
		assert.True(t, m.RecursionAvailable)
		require.Len(t, m.Answer, 1)
		require.Len(t, m.Extra, 1, "one OPT, ours")
		assert.Equal(t, []any{uint16(udpSize), true, 0}, []any{m.IsEdns0().UDPSize(), m.IsEdns0().Do(), len(m.IsEdns0().Option)})
	}
	r.ask("PLAIN.example.com.", dns.TypeA)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, seen, 4)
	ids := map[uint16]bool{}
	for _, q := range seen[:3] {
		ids[q.Id] = true
		assert.Equal(t, []any{outside, true, true}, []any{q.Question[0].Name, q.RecursionDesired, q.CheckingDisabled})
		require.NotNil(t, q.IsEdns0())
		assert.Equal(t, []any{true, 0}, []any{q.IsEdns0().Do(), len(q.IsEdns0().Option)}, "a cookie is between neighbours")
	}
	assert.Nil(t, seen[3].IsEdns0())
	assert.Greater(t, len(ids), 1, "ids are random")
	assert.Greater(t, len(ports), 1, "ports are random")
	s := r.Stats()["blue"]
	assert.Equal(t, []uint64{4, 0, 0}, []uint64{s.Forwarded, s.ForwardFailures, s.UpstreamFailures})
}

func TestNothingInternalIsForwarded(t *testing.T) {
	var asked atomic.Int32
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		says(w, q)
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}})
	for _, name := range []string{"brfuse.internal.", "x.brfuse.internal.", "web.red.BRFUSE.internal.", "nobody.blue.brfuse.internal.", "9.9.9.127.in-addr.arpa."} {
		assert.True(t, r.ask(name, dns.TypeA).Authoritative, name)
	}
	require.Zero(t, asked.Load())
	for _, name := range []string{"xbrfuse.internal.", "internal.", `x\.brfuse.internal.`, "9.9.10.127.in-addr.arpa.", "."} {
		assert.False(t, r.ask(name, dns.TypeA).Authoritative, name)
	}
	assert.Equal(t, int32(5), asked.Load())
}

// A long answer comes by TCP, and goes to the client as far as it fits.
func TestLongForeignAnswers(t *testing.T) {
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if w.RemoteAddr().Network() == "udp" {
			m.Truncated = true
		} else {
			for range 100 {
				rr := &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 50)}}
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}})
	m := r.ask(outside, dns.TypeTXT)
	assert.True(t, m.Truncated)
	assert.Len(t, m.Answer, 7)
	m = r.send(new(dns.Msg).SetQuestion(outside, dns.TypeTXT), "tcp")
	assert.False(t, m.Truncated)
	assert.Len(t, m.Answer, 100)
}

func TestForeignANY(t *testing.T) {
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{upstream(t, says)}})
	m := r.ask(outside, dns.TypeANY)
	assert.Equal(t, []any{true, 0}, []any{m.Truncated, len(m.Answer)}, "nothing to amplify")
	assert.Len(t, r.send(new(dns.Msg).SetQuestion(outside, dns.TypeANY), "tcp").Answer, 1)
}

// closed returns an address of loopback that nothing listens on.
func closed(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, c.Close())
	return addrPort(c.LocalAddr())
}

// silent returns an upstream that says nothing.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	return upstream(t, func(dns.ResponseWriter, *dns.Msg) {})
}

// failing returns an upstream that can't.
func failing(t *testing.T) netip.AddrPort {
	t.Helper()
	return upstream(t, fails(dns.RcodeServerFailure))
}

func TestUpstreamsThatFail(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  func(*testing.T) netip.AddrPort
	}{
		{"closed", closed},
		{"silent", silent},
		{"servfail", failing},
		{"truncated and closed", truncatedOnly},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, good := c.bad(t), upstream(t, says)
			r := newBlue(t, Config{Upstreams: []netip.AddrPort{bad, bad, good}, Timeout: 200 * time.Millisecond})
			for r.ask(outside, dns.TypeA).Rcode == dns.RcodeServerFailure {
				require.Less(t, r.Stats()["blue"].Forwarded, uint64(4), "the third upstream is found in the end")
			}
			failed := r.Stats()["blue"].UpstreamFailures
			assert.NotZero(t, failed)
			assert.Equal(t, dns.RcodeSuccess, r.ask(outside, dns.TypeA).Rcode)
			assert.Equal(t, failed, r.Stats()["blue"].UpstreamFailures, "it is asked first from then on")

			r = newBlue(t, Config{Upstreams: []netip.AddrPort{bad, bad}, Timeout: 200 * time.Millisecond})
			assert.Equal(t, dns.RcodeServerFailure, r.ask(outside, dns.TypeA).Rcode)
			assert.Equal(t, uint64(1), r.Stats()["blue"].ForwardFailures)
		})
	}
	// That a name doesn't exist is an answer.
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{upstream(t, fails(dns.RcodeNameError)), upstream(t, says)}})
	assert.Equal(t, dns.RcodeNameError, r.ask(outside, dns.TypeA).Rcode)
}

// truncatedOnly is an upstream by UDP whose answers are all too long for it.
func truncatedOnly(t *testing.T) netip.AddrPort {
	t.Helper()
	return raw(t, func(q *dns.Msg) [][]byte {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		return [][]byte{packed(t, m)}
	})
}

// raw is an upstream by UDP that answers one query with those packets.
func raw(t *testing.T, answer func(q *dns.Msg) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, dns.DefaultMsgSize)
		for {
			n, a, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if err := q.Unpack(b[:n]); err != nil {
				t.Errorf("query to the upstream: %v", err)
				return
			}
			for _, p := range answer(q) {
				_, _ = c.WriteTo(p, a)
			}
		}
	}()
	t.Cleanup(func() {
		assert.NoError(t, c.Close())
		<-done
	})
	return addrPort(c.LocalAddr())
}

func packed(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Errorf("pack: %v", err)
	}
	return b
}

// Of many packets to the socket of a query only its answer is taken.
func TestForgedAnswers(t *testing.T) {
	good := func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
		return m
	}
	forged := func(q *dns.Msg, change func(*dns.Msg)) []byte {
		m := good(q)
		m.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 66)
		change(m)
		return packed(t, m)
	}
	up := raw(t, func(q *dns.Msg) [][]byte {
		whole := forged(q, func(*dns.Msg) {})
		return [][]byte{
			nil,
			{1, 2, 3},
			whole[:len(whole)-1],
			forged(q, func(m *dns.Msg) { m.Id++ }),
			forged(q, func(m *dns.Msg) { m.Response = false }),
			forged(q, func(m *dns.Msg) { m.Question[0].Name = "www.example.org." }),
			forged(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
			forged(q, func(m *dns.Msg) { m.Question = nil }),
			forged(q, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }),
			forged(q, func(m *dns.Msg) { m.Truncated = true; m.Id++ }),
			packed(t, good(q)),
		}
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}})
	m := r.ask(outside, dns.TypeA)
	require.Len(t, m.Answer, 1, m)
	assert.Equal(t, "192.0.2.1", m.Answer[0].(*dns.A).A.String())
}

// The server is never its own upstream, also not for another of its networks.
func TestNoLoop(t *testing.T) {
	r := newBlue(t, Config{})
	red := blue()
	red.Name = "red"
	require.NoError(t, r.Serve(t.Context(), red))
	r.upstreams.mu.Lock()
	r.upstreams.fixed = []netip.AddrPort{netip.MustParseAddrPort(r.address("blue")), netip.MustParseAddrPort(r.address("red"))}
	r.upstreams.mu.Unlock()
	assert.Equal(t, dns.RcodeServerFailure, r.ask(outside, dns.TypeA).Rcode)
	s := r.Stats()
	assert.Zero(t, s["blue"].UpstreamFailures, "nobody was asked")
	assert.Zero(t, s["blue"].Foreign+s["red"].Foreign, "nobody was asked")
}

// One client that waits for upstreams can't keep the others from them, and what is
// too much is said at once.
func TestForwardsAreBounded(t *testing.T) {
	release := make(chan struct{})
	waiting := make(chan struct{}, 100)
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(q.Question[0].Name, "slow") {
			waiting <- struct{}{}
			<-release
		}
		says(w, q)
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}, Forwards: 5, ForwardsPerClient: 3, Timeout: limit})
	var wg sync.WaitGroup
	slow := func(client string) {
		wg.Go(func() {
			m, _, err := from(client, "udp").ExchangeContext(t.Context(), new(dns.Msg).SetQuestion("slow.example.com.", dns.TypeA), r.address("blue"))
			if assert.NoError(t, err) {
				assert.Len(t, m.Answer, 1)
			}
		})
		<-waiting
	}
	ask := func(client, name string) int {
		m, _, err := from(client, "udp").ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, dns.TypeA), r.address("blue"))
		require.NoError(t, err)
		return m.Rcode
	}
	for range 3 {
		slow("127.9.0.7")
	}
	assert.Equal(t, dns.RcodeServerFailure, ask("127.9.0.7", outside), "the client's share is in use")
	assert.Equal(t, dns.RcodeSuccess, ask("127.9.0.7", "blue.brfuse.internal."), "own names don't wait")
	assert.Equal(t, dns.RcodeSuccess, ask("127.9.0.8", outside))
	slow("127.9.0.8")
	slow("127.9.0.9")
	assert.Equal(t, dns.RcodeServerFailure, ask("127.9.0.10", outside), "the network's share is in use")
	close(release)
	wg.Wait()
	assert.Equal(t, dns.RcodeSuccess, ask("127.9.0.7", outside))
	assert.Equal(t, uint64(2), r.Stats()["blue"].Busy)
}

// A network can be stopped while upstreams are silent.
func TestStopDoesNotWaitForUpstreams(t *testing.T) {
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	defer close(release)
	up := upstream(t, func(dns.ResponseWriter, *dns.Msg) {
		asked <- struct{}{}
		<-release
	})
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{up}, Timeout: time.Hour})
	got := make(chan int, 1)
	at := r.address("blue")
	go func() {
		m, _, err := from("127.9.0.7", "udp").ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(outside, dns.TypeA), at)
		if assert.NoError(t, err) {
			got <- m.Rcode
		}
		close(got)
	}()
	<-asked
	r.Stop("blue")
	assert.Equal(t, dns.RcodeServerFailure, <-got)
}

func TestUpstreamsOfResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	u := newUpstreams(Config{ResolvConf: file}.withDefaults())
	assert.Empty(t, u.list(), "no file yet")
	for _, c := range []struct {
		content string // empty: no file
		want    string
	}{
		{"# comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver dns.example.com\n", "192.0.2.1:53 [fe80::1%eth0]:53"},
		{"nameserver 192.0.2.2\nnameserver 127.9.0.1\n", "192.0.2.2:53"},
		{"", "192.0.2.2:53"},
		{"options ndots:1\n", ""},
		{"nameserver 192.0.2.3\n", "192.0.2.3:53"},
	} {
		u.listen(netip.MustParseAddrPort("127.9.0.1:53"), 1)
		next := file + ".next"
		if c.content == "" {
			require.NoError(t, os.Remove(file))
		} else {
			require.NoError(t, os.WriteFile(next, []byte(c.content), 0o600))
			require.NoError(t, os.Rename(next, file))
		}
		var got []string
		for _, a := range u.list() {
			got = append(got, a.String())
		}
		assert.Equal(t, c.want, strings.Join(got, " "))
	}
}

func TestGateForgets(t *testing.T) {
	g := newGate(2, 1)
	a, b, c := netip.MustParseAddr("127.9.0.7"), netip.MustParseAddr("127.9.0.8"), netip.MustParseAddr("127.9.0.9")
	assert.Equal(t, []bool{true, false, true, false}, []bool{g.enter(a), g.enter(a), g.enter(b), g.enter(c)})
	g.leave(a)
	g.leave(b)
	assert.Empty(t, g.by)
	assert.True(t, g.enter(c))
}
