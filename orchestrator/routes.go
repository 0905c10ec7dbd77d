package orchestrator

import (
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// routes returns the routes of an attachment's pod: for each family a default
// route over the gateway, unless the request has its own or does without, and
// those of the request. The route to the subnet comes with the address.
func routes(a vnic.Attachment) []vnic.Route {
	var list []vnic.Route
	for _, gw := range a.Gateways {
		if a.Request.NoDefaultRoute || slices.ContainsFunc(a.Request.Routes, func(r vnic.Route) bool {
			return r.Destination.Bits() == 0 && r.Destination.Addr().Is4() == gw.Is4()
		}) {
			continue
		}
		zero := netip.IPv4Unspecified()
		if gw.Is6() {
			zero = netip.IPv6Unspecified()
		}
		list = append(list, vnic.Route{Destination: netip.PrefixFrom(zero, 0), Gateway: gw})
	}
	return append(list, a.Request.Routes...)
}

// move is what the guest half is told of an attachment. What is handed over gets
// its addresses and routes from the engine that takes it.
func move(a vnic.Attachment) vnic.Move {
	m := vnic.Move{
		ID: a.ID, MAC: a.MAC, Netns: a.Request.Netns, Interface: a.Request.Interface,
		MTU: a.MTU, Queues: a.Request.Queues, Handover: a.Request.Handover,
	}
	if !m.Handover {
		m.Addresses, m.Routes = a.Leases, routes(a)
	}
	return m
}

// plug is what the host half is told of an attachment.
func plug(a vnic.Attachment) vnic.Plug {
	p := vnic.Plug{
		VM: a.Request.VM, ID: a.ID, Network: a.Request.Network, MAC: a.MAC,
		MTU: a.MTU, Queues: a.Request.Queues, Ports: a.Request.Ports, Bandwidth: a.Request.Bandwidth,
	}
	for _, l := range a.Leases {
		p.Addresses = append(p.Addresses, l.Addr())
	}
	return p
}
