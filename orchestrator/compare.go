package orchestrator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// compare returns how a request differs from that of an attachment of the same
// key, as a [vnic.ErrConflict].
func compare(a vnic.Attachment, req vnic.Request) error {
	diffs := differences(a.Request, req)
	if len(diffs) == 0 {
		return nil
	}
	return fmt.Errorf("attachment %s of this pod has another %s; detach it first: %w", a.ID, strings.Join(diffs, ", another "), vnic.ErrConflict)
}

// differences lists what differs as "NAME (OLD, not NEW)".
func differences(old, req vnic.Request) []string {
	var diffs []string
	diff := func(name string, equal bool, a, b any) {
		if !equal {
			diffs = append(diffs, fmt.Sprintf("%s (%v, not %v)", name, a, b))
		}
	}
	diff("network", old.Network == req.Network, old.Network, req.Network)
	diff("netns", old.Netns == req.Netns, old.Netns, req.Netns)
	diff("address", slices.Equal(sorted(old.Addresses), sorted(req.Addresses)), list(old.Addresses), list(req.Addresses))
	diff("mac", old.MAC == req.MAC, macOr(old.MAC), macOr(req.MAC))
	diff("number of queues", old.Queues == req.Queues, old.Queues, req.Queues)
	diff("mtu", old.MTU == req.MTU, mtuOr(old.MTU), mtuOr(req.MTU))
	diff("setting of the default route", old.NoDefaultRoute == req.NoDefaultRoute, onOff(!old.NoDefaultRoute), onOff(!req.NoDefaultRoute))
	return diffs
}

func sorted(addrs []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "any"
	}
	words := make([]string, len(addrs))
	for i, a := range sorted(addrs) {
		words[i] = a.String()
	}
	return strings.Join(words, " and ")
}

func macOr(m vnic.MAC) string {
	if m.IsZero() {
		return "any"
	}
	return m.String()
}

func mtuOr(mtu int) string {
	if mtu == 0 {
		return "the network's"
	}
	return fmt.Sprint(mtu)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
