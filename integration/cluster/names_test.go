package cluster

import (
	"context"
	"net"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A name that the hypervisors' name server knows, and its address.
const outside, outsideAddr = "outside.example", "198.51.100.7"

// TestIntegrationClusterNames has pods ask the gateway for names: of a pod on their
// own hypervisor, of one on another, and of what is outside.
func TestIntegrationClusterNames(t *testing.T) {
	ctx, r := open(t)
	serveOutside(t, r)
	createBlue(ctx, t, r.a)
	web, db := attach(ctx, t, r.a, "web"), attach(ctx, t, r.b, "db")
	for _, gateway := range []string{"10.231.0.1", "fd00:231::1"} {
		for _, asker := range []struct {
			h   *hyper
			pod string
		}{{r.a, "web"}, {r.b, "db"}} {
			t.Run(asker.pod+" at "+gateway, func(t *testing.T) {
				for _, tt := range []struct{ kind, name, want string }{
					{"a", "web.blue.brfuse.internal", web.Addr(false)},
					{"a", "db.blue.brfuse.internal", db.Addr(false)},
					{"aaaa", "web.blue.brfuse.internal", web.Addr(true)},
					{"aaaa", "db.blue.brfuse.internal", db.Addr(true)},
					{"ptr", web.Addr(false), "web.blue.brfuse.internal"},
					{"ptr", db.Addr(true), "db.blue.brfuse.internal"},
					{"a", outside, outsideAddr},
				} {
					assert.Contains(t, lookUp(ctx, t, asker.h, asker.pod, tt.kind, tt.name, gateway), tt.want, "%s %s", tt.kind, tt.name)
				}
				assert.Contains(t, lookUp(ctx, t, asker.h, asker.pod, "a", "nobody.blue.brfuse.internal", gateway), "NXDOMAIN")
			})
		}
	}
}

// lookUp returns what busybox's resolver prints.
func lookUp(ctx context.Context, t *testing.T, h *hyper, pod, kind, name, server string) string {
	t.Helper()
	argv := []string{"nslookup", "-type=" + kind, name, server}
	if kind == "ptr" { // which it asks for by itself of an address
		argv = []string{"nslookup", name, server}
	}
	res, err := h.vm.RunIn(ctx, pod, argv...)
	require.NoError(t, err)
	return res.Stdout + res.Stderr
}

// serveOutside answers names at the switch, as the name server of all hypervisors.
func serveOutside(t *testing.T, r *rig) {
	t.Helper()
	var pc net.PacketConn
	require.NoError(t, r.sw.NS().Do(func() (err error) {
		pc, err = net.ListenPacket("udp", upstream+":53") //nolint:noctx // returns at once
		return err
	}))
	up := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		if name := q.Question[0].Name; name == outside+"." {
			hdr := dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
			m = new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.ParseIP(outsideAddr)}}
		}
		_ = w.WriteMsg(m) // who doesn't get it tells
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-up
	t.Cleanup(func() {
		require.NoError(t, srv.Shutdown())
		require.NoError(t, <-done)
	})
}
