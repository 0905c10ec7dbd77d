package orchestrator

import (
	"net/netip"

	"github.com/brfuse/brfuse/vnic"
)

// routes returns the routes of an attachment's pod: for each family a default
// route over the gateway, unless the request does without. The route to the
// subnet comes with the address.
func routes(a vnic.Attachment) []vnic.Route {
	if a.Request.NoDefaultRoute {
		return nil
	}
	list := make([]vnic.Route, 0, len(a.Gateways))
	for _, gw := range a.Gateways {
		zero := netip.IPv4Unspecified()
		if gw.Is6() {
			zero = netip.IPv6Unspecified()
		}
		list = append(list, vnic.Route{Destination: netip.PrefixFrom(zero, 0), Gateway: gw})
	}
	return list
}

// move is what the guest half is told of an attachment.
func move(a vnic.Attachment) vnic.Move {
	return vnic.Move{
		ID: a.ID, MAC: a.MAC, Netns: a.Request.Netns, Interface: a.Request.Interface,
		MTU: a.MTU, Queues: a.Request.Queues, Addresses: a.Leases, Routes: routes(a),
	}
}

// plug is what the host half is told of an attachment.
func plug(a vnic.Attachment) vnic.Plug {
	p := vnic.Plug{
		VM: a.Request.VM, ID: a.ID, Network: a.Request.Network, MAC: a.MAC,
		MTU: a.MTU, Queues: a.Request.Queues,
	}
	for _, l := range a.Leases {
		p.Addresses = append(p.Addresses, l.Addr())
	}
	return p
}
