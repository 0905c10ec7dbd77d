package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// limit is how long a test waits for what must happen.
const limit = 20 * time.Second

// blue is a network on loopback: what is 127.9.0.0/16 may ask it. Its second gateway
// has an address that isn't listened on.
func blue() vnic.Network {
	return vnic.Network{
		Name:     "blue",
		Subnets:  []netip.Prefix{netip.MustParsePrefix("127.9.0.0/16"), netip.MustParsePrefix("fd00:9::/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("127.9.0.1"), netip.MustParseAddr("fd00:9::1")},
	}
}

// rig is a server whose sockets have free ports on loopback.
type rig struct {
	*Server
	t testing.TB

	mu sync.Mutex
	at map[string]string // network and address of the IPv4 gateway, host:port
}

// newRig makes a server, which ends with the test.
func newRig(tb testing.TB, c Config) *rig {
	tb.Helper()
	r := &rig{t: tb, at: map[string]string{}}
	c.Listen = r.listen
	c.Logger = slog.New(slog.DiscardHandler)
	r.Server = New(c)
	tb.Cleanup(r.Close)
	return r
}

// newBlue makes a server of the network blue.
func newBlue(tb testing.TB, c Config) *rig {
	tb.Helper()
	r := newRig(tb, c)
	require.NoError(tb, r.Serve(tb.Context(), blue()))
	return r
}

func (r *rig) listen(ctx context.Context, n vnic.Network, gateway netip.AddrPort) (*net.UDPConn, net.Listener, error) {
	at := netip.AddrPortFrom(gateway.Addr(), 0)
	if gateway.Addr().Is6() {
		at = netip.MustParseAddrPort("127.9.0.2:0")
	}
	var errs []error
	for range 10 { // the port may be taken for the other protocol
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addrPort(l.Addr())))
		if err != nil {
			errs = append(errs, err, l.Close())
			continue
		}
		if gateway.Addr().Is4() {
			r.mu.Lock()
			r.at[n.Name] = l.Addr().String()
			r.mu.Unlock()
		}
		return udp, l, nil
	}
	return nil, nil, errors.Join(errs...)
}

func (r *rig) address(network string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[network]
}

// from returns a client of an address.
func from(client, proto string) *dns.Client {
	d := &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(client)}}
	if proto == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(client)}
	}
	return &dns.Client{Net: proto, Dialer: d, Timeout: limit}
}

// send asks the network blue from 127.9.0.7.
func (r *rig) send(m *dns.Msg, proto string) *dns.Msg {
	r.t.Helper()
	a, _, err := from("127.9.0.7", proto).ExchangeContext(r.t.Context(), m, r.address("blue"))
	require.NoError(r.t, err)
	return a
}

// ask asks for a name by UDP.
func (r *rig) ask(name string, rrtype uint16) *dns.Msg {
	r.t.Helper()
	return r.send(new(dns.Msg).SetQuestion(name, rrtype), "udp")
}

// put adds records to the network blue.
func (r *rig) put(records ...Record) {
	r.t.Helper()
	for _, rec := range records {
		require.NoError(r.t, r.Put("blue", rec))
	}
}

func addrs(s ...string) []netip.Addr {
	var as []netip.Addr
	for _, a := range s {
		as = append(as, netip.MustParseAddr(a))
	}
	return as
}

// web and its twin are two replicas of a service, db is a pod that isn't ready.
func web() Record {
	return Record{
		ID: "00000000a1", Names: []string{"shop/web-1", "web"}, Addresses: addrs("127.9.0.11", "fd00:9::11"), Ready: true,
		Ports: []Port{{Name: "http", Number: 80, Protocol: vnic.TCP}},
	}
}

func twin() Record {
	return Record{
		ID: "00000000a2", Names: []string{"shop/web-2", "web"}, Addresses: addrs("127.9.0.12", "fd00:9::12"), Ready: true,
		Ports: []Port{{Name: "http", Number: 8080, Protocol: vnic.TCP}},
	}
}

func db() Record {
	return Record{ID: "00000000b1", Names: []string{"DB"}, Addresses: addrs("127.9.0.20"), Ports: []Port{{Number: 5432, Protocol: vnic.TCP}}}
}

// upstream is a name server that is not ours, on a free port of loopback.
func upstream(t *testing.T, h dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	udp, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", l.Addr().String())
	require.NoError(t, err)
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: udp, Handler: h}} {
		started, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(started) }
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(s.Shutdown(), <-done); err != nil {
				t.Errorf("end the upstream: %v", err)
			}
		})
	}
	return addrPort(l.Addr())
}

// says answers with the address 192.0.2.1.
func says(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
	m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
	_ = w.WriteMsg(m)
}

// fails returns a handler that answers with an error.
func fails(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
}
