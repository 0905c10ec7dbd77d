package names_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/vnic"
)

// A pod of a network, here on loopback, finds another by its name.
func Example() {
	network := vnic.Network{
		Name:     "blue",
		Subnets:  []netip.Prefix{netip.MustParsePrefix("127.9.0.0/16")},
		Gateways: []netip.Addr{netip.MustParseAddr("127.9.0.1")},
	}
	var at net.Addr
	s := names.New(names.Config{
		// Port 53 needs root, so the example opens sockets of its own.
		Listen: func(ctx context.Context, n vnic.Network, gateway netip.AddrPort) (*net.UDPConn, net.Listener, error) {
			udp, l, err := names.Listen(ctx, n, netip.AddrPortFrom(gateway.Addr(), 5391))
			if err == nil {
				at = udp.LocalAddr()
			}
			return udp, l, err
		},
	})
	defer s.Close()
	if err := s.Serve(context.Background(), network); err != nil {
		fmt.Println(err)
		return
	}
	err := s.Put("blue", names.Record{
		ID: "9fc764e77b", Names: []string{"shop/web"}, Addresses: []netip.Addr{netip.MustParseAddr("127.9.0.3")}, Ready: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	pod := dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 9, 0, 4)}}}
	m, _, err := pod.Exchange(new(dns.Msg).SetQuestion("web.shop.blue.brfuse.internal.", dns.TypeA), at.String())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Answer[0])
	// Output: web.shop.blue.brfuse.internal.	5	IN	A	127.9.0.3
}
