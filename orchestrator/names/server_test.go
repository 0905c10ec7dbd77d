package names

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// The resolver of Go asks as glibc's does: A and AAAA at once, by UDP, with EDNS, along
// the search list.
func TestGoResolver(t *testing.T) {
	r := newBlue(t, Config{ResolvConf: "/nonexistent"})
	r.put(web(), twin(), db())
	res := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from("127.9.0.7", network).Dialer.DialContext(ctx, network, r.address("blue"))
	}}
	ips, err := res.LookupNetIP(t.Context(), "ip", "web.blue.brfuse.internal.")
	require.NoError(t, err)
	assert.ElementsMatch(t, addrs("127.9.0.11", "127.9.0.12", "fd00:9::11", "fd00:9::12"), ips)
	ips, err = res.LookupNetIP(t.Context(), "ip6", "WEB-1.shop.blue.brfuse.internal.")
	require.NoError(t, err)
	assert.Equal(t, addrs("fd00:9::11"), ips)

	_, srvs, err := res.LookupSRV(t.Context(), "http", "tcp", "web.blue.brfuse.internal.")
	require.NoError(t, err)
	var ports []uint16
	for _, s := range srvs {
		ports = append(ports, s.Port)
		ips, err := res.LookupNetIP(t.Context(), "ip4", s.Target)
		require.NoError(t, err)
		assert.Len(t, ips, 1)
	}
	assert.ElementsMatch(t, []uint16{80, 8080}, ports)

	for _, a := range web().Addresses {
		names, err := res.LookupAddr(t.Context(), a.String())
		require.NoError(t, err)
		assert.Equal(t, []string{"web-1.shop.blue.brfuse.internal."}, names)
	}
	ns, err := res.LookupNS(t.Context(), "blue.brfuse.internal.")
	require.NoError(t, err)
	assert.Len(t, ns, 1)

	for _, name := range []string{"nobody.blue.brfuse.internal.", "db.blue.brfuse.internal."} {
		_, err := res.LookupNetIP(t.Context(), "ip", name)
		var dnsErr *net.DNSError
		require.ErrorAs(t, err, &dnsErr)
		assert.True(t, dnsErr.IsNotFound, name)
	}
}

func TestServeAgain(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	at := r.address("blue")
	require.NoError(t, r.Serve(t.Context(), blue()))
	assert.Equal(t, at, r.address("blue"))
	assert.Len(t, r.ask("web.blue.brfuse.internal.", dns.TypeA).Answer, 1)

	other := blue()
	other.Gateways[0] = netip.MustParseAddr("127.9.0.2")
	require.ErrorIs(t, r.Serve(t.Context(), other), vnic.ErrConflict)

	r.Stop("blue")
	r.Stop("blue")
	require.NoError(t, r.Serve(t.Context(), blue()))
	assert.Equal(t, dns.RcodeNameError, r.ask("web.blue.brfuse.internal.", dns.TypeA).Rcode, "records are gone with it")
}

func TestServeOutlivesItsContext(t *testing.T) {
	r := newRig(t, Config{Upstreams: []netip.AddrPort{upstream(t, says)}})
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, r.Serve(ctx, blue()))
	cancel()
	assert.Len(t, r.ask(outside, dns.TypeA).Answer, 1)
}

func TestServeRefuses(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, c := range []struct {
		name   string
		config Config
		change func(*vnic.Network)
	}{
		{"no gateway", Config{}, func(n *vnic.Network) { n.Gateways = nil }},
		{"empty part", Config{}, func(n *vnic.Network) { n.Name = "a..b" }},
		{"dot at the end", Config{}, func(n *vnic.Network) { n.Name = "a." }},
		{"domain that is none", Config{Domain: "a..b"}, func(*vnic.Network) {}},
		{"root as domain", Config{Domain: "."}, func(*vnic.Network) {}},
		{"long domain", Config{Domain: strings.Join([]string{long, long, long, long[:58]}, ".")}, func(*vnic.Network) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := blue()
			c.change(&n)
			r := newRig(t, c.config)
			require.ErrorIs(t, r.Serve(t.Context(), n), vnic.ErrInvalid)
			assert.Empty(t, r.Stats())
		})
	}
}

// When one gateway can't be listened on, the sockets of the others are closed.
func TestServeUndoes(t *testing.T) {
	r := newRig(t, Config{})
	no := errors.New("no")
	var udp *net.UDPConn
	s := New(Config{Listen: func(ctx context.Context, n vnic.Network, gw netip.AddrPort) (*net.UDPConn, net.Listener, error) {
		if udp != nil {
			return nil, nil, no
		}
		u, l, err := r.listen(ctx, n, gw)
		udp = u
		return u, l, err
	}})
	require.ErrorIs(t, s.Serve(t.Context(), blue()), no)
	require.NotNil(t, udp)
	require.ErrorIs(t, udp.Close(), net.ErrClosed)
	_, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.address("blue"))
	require.Error(t, err)
	assert.Empty(t, s.upstreams.self)
}

// Close ends connections that are open.
func TestCloseEndsConnections(t *testing.T) {
	r := newBlue(t, Config{})
	c, err := from("127.9.0.7", "tcp").Dialer.DialContext(t.Context(), "tcp", r.address("blue"))
	require.NoError(t, err)
	defer c.Close()
	n, err := r.get("blue")
	require.NoError(t, err)
	r.put(web())
	require.Len(t, r.send(question(func(*dns.Msg) {}), "tcp").Answer, 1, "the first connection is accepted, too")
	r.Close()
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err)
	assert.Empty(t, n.conns.by)
	assert.Empty(t, r.upstreams.self)
}

func TestUnknownNetworks(t *testing.T) {
	s := New(Config{})
	_, err := s.ResolvConf("red")
	for _, err := range []error{s.Put("red", web()), s.Delete("red", web().ID), s.Replace("red", nil), err} {
		require.ErrorIs(t, err, vnic.ErrUnknownNetwork)
	}
	r := newBlue(t, Config{})
	require.ErrorIs(t, r.Put("blue", Record{ID: "x.y"}), vnic.ErrInvalid)
}

func TestResolvConf(t *testing.T) {
	r := newRig(t, Config{Domain: "Example.ORG"})
	n := blue()
	n.Name = "Blue.1"
	require.NoError(t, r.Serve(t.Context(), n))
	c, err := r.ResolvConf("Blue.1")
	require.NoError(t, err)
	assert.Equal(t, ResolvConf{Nameservers: addrs("127.9.0.1", "fd00:9::1"), Search: []string{"blue.1.example.org"}, Options: []string{"ndots:2"}}, c)
}

func TestStatsOfTimes(t *testing.T) {
	r := newBlue(t, Config{Upstreams: []netip.AddrPort{upstream(t, says)}})
	r.ask("blue.brfuse.internal.", dns.TypeA)
	r.ask("blue.brfuse.internal.", dns.TypeAAAA)
	r.ask(outside, dns.TypeA)
	s := r.Stats()["blue"]
	sum := func(h Histogram) (n uint64) {
		assert.Len(t, h.Counts, len(h.Bounds)+1)
		for _, c := range h.Counts {
			n += c
		}
		return n
	}
	assert.Equal(t, []uint64{2, 1}, []uint64{sum(s.Own), sum(s.Outside)})
	assert.NotZero(t, s.Own.Sum)

	var h histogram
	for _, d := range []time.Duration{0, 100_000, 100_001, 5e9, 5e9 + 1} {
		h.observe(d)
	}
	assert.Equal(t, []uint64{2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, h.read().Counts)
}
