package cniapi

import (
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// Routes returns the routes that an attachment has in its pod, beside those to
// its subnets: default routes over its gateways, unless it does without or has
// one of its own, and those that it was asked for with.
func Routes(a vnic.Attachment) []vnic.Route {
	var rs []vnic.Route
	for _, g := range a.Gateways {
		own := slices.ContainsFunc(a.Request.Routes, func(r vnic.Route) bool { return r.Destination == defaultOf(g) })
		if g.IsValid() && !own && !a.Request.NoDefaultRoute {
			rs = append(rs, vnic.Route{Destination: defaultOf(g), Gateway: g})
		}
	}
	return append(rs, a.Request.Routes...)
}

// defaultOf returns the destination of a gateway's default route.
func defaultOf(gateway netip.Addr) netip.Prefix {
	if gateway.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
