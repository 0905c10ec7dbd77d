package names

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// tcpIdle is how long a connection may be without a query (RFC 7766, section 6.2.3).
const tcpIdle = 8 * time.Second

// running is a server on one socket.
type running struct {
	*dns.Server
	address netip.AddrPort
	done    chan struct{} // closed when it has ended
}

// run starts servers on both sockets of a gateway. What is started is in n.running.
func (n *served) run(ctx context.Context, udp *net.UDPConn, l net.Listener) {
	n.start(ctx, &dns.Server{PacketConn: udp, UDPSize: udpSize}, udp.LocalAddr())
	n.start(ctx, &dns.Server{Listener: onlyOwn{l, n}}, l.Addr())
}

// start returns once the server may be shut down.
func (n *served) start(ctx context.Context, s *dns.Server, a net.Addr) {
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { n.answer(ctx, w, m) })
	s.DecorateReader = func(r dns.Reader) dns.Reader { return ownReader{r, n} }
	s.MsgAcceptFunc = n.accept
	s.MsgInvalidFunc = func([]byte, error) { n.stats.malformed.Add(1) }
	s.IdleTimeout = func() time.Duration { return tcpIdle }
	r := &running{Server: s, address: addrPort(a), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := s.ActivateAndServe(); err != nil {
			n.log.Error("serve names", "address", r.address, "err", err)
		}
	}()
	select {
	case <-started:
	case <-r.done:
	}
	n.running = append(n.running, r)
}

// end stops all servers of a network, and waits until no query is being answered:
// not for upstreams, and for slow clients no longer than writeTimeout.
func (n *served) end() {
	n.cancel()
	for _, r := range n.running {
		// An error says that it has ended already, by an error of its own.
		_ = r.Shutdown()
		<-r.done
	}
}

// addrPort returns an IP endpoint's address and port.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
