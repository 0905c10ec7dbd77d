package overlay

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// What a tunnel adds to a pod's packet, in bytes: its Ethernet header, those of VXLAN and
// UDP, and that of IPv4 or IPv6 (RFC 7348, section 5).
const (
	overhead4 = 14 + 8 + 8 + 20
	overhead6 = 14 + 8 + 8 + 40
)

// MTU returns the largest MTU, in bytes, with which pods' packets fit into the underlay
// once they are encapsulated: that of the link that has the local address, less what the
// tunnel adds. An address of the loopback link, as routed underlays have it, tells
// nothing: then it is the smallest MTU of the links that lead to gateways.
func (o *Overlay) MTU() (int, error) {
	var addrs []rtnl.Addr
	var routes []rtnl.Route
	var links []rtnl.Link
	for _, r := range []rtnl.Request{rtnl.GetAddrs(&addrs), rtnl.GetRoutes(&routes), rtnl.GetLinks(&links)} {
		if err := o.conn.Do(r); err != nil { // one list at a time
			return 0, fmt.Errorf("mtu of the overlay: %w", err)
		}
	}
	mtu := underlayMTU(o.cfg.Local, addrs, routes, links)
	overhead := overhead4
	if o.cfg.Local.Is6() {
		overhead = overhead6
	}
	if mtu == noGateway {
		return 0, fmt.Errorf("mtu of the overlay: address %s is on the loopback link, and no route of its family leads to a gateway, whose link would tell: %w: give the host such a route, or name another address",
			o.cfg.Local, vnic.ErrInvalid)
	}
	if mtu <= overhead {
		return 0, fmt.Errorf("mtu of the overlay: no link of the underlay has address %s: %w: give the host that address, or name another",
			o.cfg.Local, vnic.ErrInvalid)
	}
	return mtu - overhead, nil
}

// noGateway is the MTU of an address on the loopback link when no route leads away.
const noGateway = -1

// underlayMTU returns 0 when no link has the address.
func underlayMTU(local netip.Addr, addrs []rtnl.Addr, routes []rtnl.Route, links []rtnl.Link) int {
	byIndex := make(map[int]rtnl.Link, len(links))
	for _, l := range links {
		byIndex[l.Index] = l
	}
	loopback := false
	for _, a := range addrs {
		if a.Prefix.Addr() != local {
			continue
		}
		if l := byIndex[a.Index]; l.Flags&unix.IFF_LOOPBACK == 0 {
			return l.MTU
		}
		loopback = true
	}
	if !loopback {
		return 0
	}
	smallest := noGateway
	for _, r := range routes {
		if l := byIndex[r.Index]; r.Gateway.Is4() == local.Is4() && r.Gateway.IsValid() && (smallest == noGateway || l.MTU < smallest) {
			smallest = l.MTU
		}
	}
	return smallest
}
