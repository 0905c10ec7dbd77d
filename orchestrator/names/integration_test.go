package names_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/vnic"
)

// newNetns returns a network namespace that lasts as long as the test.
func newNetns(t *testing.T) *netnsx.NS {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return ns
}

func ip(t *testing.T, ns *netnsx.NS, args ...string) {
	t.Helper()
	require.NoError(t, ns.Do(func() error {
		return exec.CommandContext(t.Context(), "ip", args...).Run()
	}), args)
}

func complete(t *testing.T, name string, subnets ...string) vnic.Network {
	t.Helper()
	n := vnic.Network{Name: name}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	n, err := n.Complete()
	require.NoError(t, err)
	return n
}

// query asks from an address of a namespace.
func query(t *testing.T, ns *netnsx.NS, proto, from, gateway, name string, rrtype uint16, timeout time.Duration) (*dns.Msg, error) {
	t.Helper()
	var c net.Conn
	require.NoError(t, ns.Do(func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		if proto == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		var err error
		c, err = d.DialContext(t.Context(), proto, net.JoinHostPort(gateway, "53"))
		return err
	}))
	defer c.Close()
	m, _, err := (&dns.Client{Net: proto, Timeout: timeout}).ExchangeWithConn(new(dns.Msg).SetQuestion(name, rrtype), &dns.Conn{Conn: c})
	return m, err
}

// TestIntegrationGatewaysComeLater: the default sockets are there before the bridges are,
// are good once these come, and again when they went; pods of one network see nothing
// of another that is routed to.
func TestIntegrationGatewaysComeLater(t *testing.T) {
	ns := newNetns(t)
	ip(t, ns, "link", "set", "lo", "up")
	s := names.New(names.Config{ResolvConf: "/nonexistent"})
	t.Cleanup(s.Close)
	blue, red := complete(t, "blue", "10.91.0.0/24", "fd00:91::/64"), complete(t, "red", "10.92.0.0/24")
	for _, n := range []vnic.Network{blue, red} {
		require.NoError(t, ns.Do(func() error { return s.Serve(t.Context(), n) }))
		rec := names.Record{ID: "00000000a1", Names: []string{"web"}, Addresses: []netip.Addr{n.Gateways[0].Next()}, Ready: true}
		require.NoError(t, s.Put(n.Name, rec))
	}
	for range 2 {
		ip(t, ns, "link", "add", "bf-blue", "type", "bridge")
		ip(t, ns, "link", "add", "bf-red", "type", "bridge")
		for _, a := range []string{"10.91.0.1/24", "10.91.0.7/24", "fd00:91::1/64", "fd00:91::7/64"} {
			ip(t, ns, "addr", "add", a, "dev", "bf-blue", "nodad")
		}
		ip(t, ns, "addr", "add", "10.92.0.1/24", "dev", "bf-red")
		ip(t, ns, "link", "set", "bf-blue", "up")
		ip(t, ns, "link", "set", "bf-red", "up")
		for _, c := range [][3]string{
			{"udp", "10.91.0.7", "10.91.0.1"},
			{"tcp", "10.91.0.7", "10.91.0.1"},
			{"udp", "fd00:91::7", "fd00:91::1"},
			{"tcp", "fd00:91::7", "fd00:91::1"},
		} {
			m, err := query(t, ns, c[0], c[1], c[2], "web.blue.brfuse.internal.", dns.TypeA, 20*time.Second)
			require.NoError(t, err, c)
			require.Len(t, m.Answer, 1)
			assert.Equal(t, "10.91.0.2", m.Answer[0].(*dns.A).A.String())
		}
		_, err := query(t, ns, "tcp", "10.91.0.7", "10.92.0.1", "web.red.brfuse.internal.", dns.TypeA, 20*time.Second)
		require.Error(t, err, "a pod of blue asks red")
		ip(t, ns, "link", "del", "bf-blue")
		ip(t, ns, "link", "del", "bf-red")
	}
	st := s.Stats()
	assert.Equal(t, []uint64{0, 2}, []uint64{st["blue"].Foreign, st["red"].Foreign})
	assert.Empty(t, st["red"].Queries)
}

// TestIntegrationPortIsTaken: another name server on the gateway is said, not shared with.
func TestIntegrationPortIsTaken(t *testing.T) {
	ns := newNetns(t)
	s, other := names.New(names.Config{}), names.New(names.Config{})
	t.Cleanup(s.Close)
	t.Cleanup(other.Close)
	n := complete(t, "blue", "10.91.0.0/24")
	serve := func(s *names.Server) error {
		return ns.Do(func() error { return s.Serve(context.WithoutCancel(t.Context()), n) })
	}
	require.NoError(t, serve(other))
	require.ErrorContains(t, serve(s), "network blue")
	other.Stop("blue")
	require.NoError(t, serve(s))
}
