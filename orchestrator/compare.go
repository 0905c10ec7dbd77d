package orchestrator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// compare returns how a request differs from an attachment of the same key, as a
// [vnic.ErrConflict]. Addresses, MAC, MTU and namespace that it leaves open may
// be any; the pod's name is the default of the last. So may published ports, for
// [Orchestrator.Publish] changes them. Labels are remarks and are not compared.
func compare(a vnic.Attachment, req vnic.Request) error {
	diffs := differences(a, req)
	if len(diffs) == 0 {
		return nil
	}
	return fmt.Errorf("attachment %s of this pod has another %s; detach it first: %w", a.ID, strings.Join(diffs, ", another "), vnic.ErrConflict)
}

// differences lists what differs as "NAME (OLD, not NEW)".
func differences(a vnic.Attachment, req vnic.Request) []string {
	old := a.Request
	leased := make([]netip.Addr, len(a.Leases))
	for i, l := range a.Leases {
		leased[i] = l.Addr()
	}
	other := func(w netip.Addr) bool { return !slices.Contains(leased, w) }
	var diffs []string
	diff := func(name string, equal bool, a, b any) {
		if !equal {
			diffs = append(diffs, fmt.Sprintf("%s (%v, not %v)", name, a, b))
		}
	}
	diff("network", old.Network == req.Network, old.Network, req.Network)
	diff("netns", old.Netns == req.Netns || req.Netns == req.Pod, old.Netns, req.Netns)
	diff("address", !slices.ContainsFunc(req.Addresses, other), list(leased), list(req.Addresses))
	diff("choice of addresses", old.Exact == req.Exact, exact(old.Exact), exact(req.Exact))
	diff("mac", req.MAC.IsZero() || a.MAC == req.MAC, a.MAC, req.MAC)
	diff("number of queues", old.Queues == req.Queues, old.Queues, req.Queues)
	diff("mtu", req.MTU == 0 || a.MTU == req.MTU, a.MTU, req.MTU)
	diff("setting of the default route", old.NoDefaultRoute == req.NoDefaultRoute, onOff(!old.NoDefaultRoute), onOff(!req.NoDefaultRoute))
	diff("place of delivery", old.Handover == req.Handover, delivery(old), delivery(req))
	diff("set of routes", slices.Equal(old.Routes, req.Routes), routeList(old.Routes), routeList(req.Routes))
	diff("bandwidth", old.Bandwidth == req.Bandwidth, old.Bandwidth, req.Bandwidth)
	diff("set of published ports", len(req.Ports) == 0 || slices.Equal(old.Ports, req.Ports), old.Ports, req.Ports)
	diff("manager", old.Manager == req.Manager, managerName(old.Manager), managerName(req.Manager))
	return diffs
}

func delivery(r vnic.Request) string {
	if r.Handover {
		return "the guest's first namespace"
	}
	return "the pod"
}

func routeList(routes []vnic.Route) string {
	if len(routes) == 0 {
		return "none"
	}
	words := make([]string, len(routes))
	for i, r := range routes {
		words[i] = r.Destination.String()
		if r.Gateway.IsValid() {
			words[i] += " via " + r.Gateway.String()
		}
	}
	return strings.Join(words, " and ")
}

func managerName(s string) string {
	if s == "" {
		return "the daemon's API"
	}
	return s
}

func sorted(addrs []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "none"
	}
	words := make([]string, len(addrs))
	for i, a := range sorted(addrs) {
		words[i] = a.String()
	}
	return strings.Join(words, " and ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func exact(on bool) string {
	if on {
		return "the wanted ones alone"
	}
	return "one a subnet"
}
