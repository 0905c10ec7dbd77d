package hostside

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/hostside/internal/reserve"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// ProbePublish is [Probe] for what published ports take beside. Plug asks for it
// only when a vNIC has ports.
func ProbePublish() error { return guard.ProbePublishing() }

// ProbeBandwidth is [Probe] for what bandwidths take beside. Plug asks for it
// only when a vNIC has one.
func ProbeBandwidth() error {
	if err := guard.ProbeLimits(); err != nil {
		return err
	}
	return port.ProbeShape()
}

// checkOptions returns the first thing that is wrong with p's ports and bandwidth
// as a [vnic.ErrInvalid].
func checkOptions(p vnic.Plug) error {
	for i, m := range p.Ports {
		if err := m.Validate(); err != nil {
			return err
		}
		if j := slices.IndexFunc(p.Ports[:i], m.Overlaps); j >= 0 {
			return fmt.Errorf("port mappings %s and %s overlap: %w", p.Ports[j], m, vnic.ErrInvalid)
		}
	}
	if _, err := guard.Publish(p.Ports, p.Addresses); err != nil {
		return err
	}
	return p.Bandwidth.Validate()
}

// filter puts the filter of a vNIC in force, and with it its ports and what it may
// send and receive. What fails leaves the ports that were there before.
func (h *Host) filter(ctx context.Context, n vnic.Network, p vnic.Plug, steps *undo) error {
	now := guard.Port{
		Tap: p.ID.TapName(), MAC: p.MAC, Addresses: p.Addresses, Limit: guard.LimitOf(p.Bandwidth.Egress),
		Open: n.Unaddressed, Direct: n.Kind == vnic.KindMacvtap,
	}
	var err error
	if now.Published, err = guard.Publish(p.Ports, p.Addresses); err != nil {
		return err
	}
	if err := h.links.Shape(ctx, now.Tap, p.Bandwidth.Ingress, p.MTU); err != nil {
		return err
	}
	if len(now.Published) > 0 {
		if err := h.links.Forward(ctx, p.Addresses); err != nil {
			return err
		}
	}
	old := h.guard.Port(now.Tap)
	commit, cancel, err := h.reserved.Set(ctx, owner(p.ID), hostPorts(now), hostPorts(old))
	if err != nil {
		return err
	}
	steps.add("forget filter", func(ctx context.Context) error { return h.unfilter(ctx, p.ID) })
	if err := h.guard.SetPort(ctx, now); err != nil {
		cancel()
		return err
	}
	commit()
	h.forget(old.Published, now.Published)
	return nil
}

// unfilter takes back what filter did but for the limit on the tap, which goes
// with the tap.
func (h *Host) unfilter(ctx context.Context, id vnic.ID) error {
	old := h.guard.Port(id.TapName())
	if err := h.guard.RemovePort(ctx, id.TapName()); err != nil {
		return err
	}
	h.reserved.Release(owner(id))
	h.forget(old.Published, nil)
	return nil
}

// reserveAgain keeps the ports that an earlier process left in force.
func (h *Host) reserveAgain(ctx context.Context) {
	for _, p := range h.guard.Ports() {
		id, ok := vnic.IDFromName(p.Tap)
		if !ok || len(p.Published) == 0 {
			continue
		}
		commit, _, err := h.reserved.Set(ctx, owner(id), hostPorts(p), hostPorts(p))
		if err != nil {
			h.log.Warn("keep ports of the host", "id", id, "error", err)
			continue
		}
		commit()
	}
}

// owner names a vNIC where its ports are in another one's way.
func owner(id vnic.ID) string { return "vnic " + string(id) }

func hostPorts(p guard.Port) []reserve.Port {
	ports := make([]reserve.Port, 0, len(p.Published))
	for _, published := range p.Published {
		ports = append(ports, reserve.Port{Protocol: published.Protocol, Address: published.Host})
	}
	return ports
}

// forget makes the kernel forget connections to ports that don't lead where they
// did: translation is decided once for each connection, and one of UDP lasts as
// long as somebody sends.
func (h *Host) forget(old, now []guard.Published) {
	stale, err := h.stale(old, now)
	for v6, f := range stale {
		if err == nil {
			var n int
			n, err = h.conntrack.Forget(v6, f.match)
			h.log.Debug("forgot connections to ports that changed", "ipv6", v6, "connections", n)
		}
	}
	if err != nil {
		h.log.Warn("connections to ports that were published or are no longer may go on as before", "error", err)
	}
}

// flows are connections of one family that have to be forgotten.
type flows struct {
	gone, fresh map[hostPort][]guard.Published
	local       map[netip.Addr]bool // addresses of the host
}

type hostPort struct {
	protocol uint8
	port     uint16
}

// stale returns the connections that a change makes stale, for IPv4 and IPv6.
func (h *Host) stale(old, now []guard.Published) (map[bool]flows, error) {
	stale := map[bool]flows{}
	add := func(p guard.Published, fresh bool) {
		v6 := p.To.Addr().Is6()
		if _, ok := stale[v6]; !ok {
			stale[v6] = flows{map[hostPort][]guard.Published{}, map[hostPort][]guard.Published{}, map[netip.Addr]bool{}}
		}
		in, key := stale[v6].gone, hostPort{p.Number(), p.Host.Port()}
		if fresh {
			in = stale[v6].fresh
		}
		in[key] = append(in[key], p)
	}
	anyFresh := false
	for _, p := range old {
		if !slices.Contains(now, p) {
			add(p, false)
		}
	}
	for _, p := range now {
		// Who sends TCP to a port that nobody has is told so, and begins anew.
		if p.Protocol != vnic.TCP && !slices.Contains(old, p) {
			anyFresh = true
			add(p, true)
		}
	}
	if !anyFresh {
		return stale, nil
	}
	addresses, err := h.links.Addresses()
	for _, f := range stale {
		for _, a := range addresses {
			f.local[a] = true
		}
	}
	return stale, err
}

// match tells whether a connection went by a port that is gone, or to one that is
// new and didn't lead to the pod.
func (f flows) match(flow rtnl.Flow) bool {
	key := hostPort{flow.Protocol, flow.Destination.Port()}
	for _, p := range f.gone[key] {
		if flow.Target == p.To && flow.Destination != p.To {
			return true
		}
	}
	for _, p := range f.fresh[key] {
		host := p.Host.Addr()
		if flow.Target != p.To && (flow.Destination.Addr() == host || host.IsUnspecified() && f.local[flow.Destination.Addr()]) {
			return true
		}
	}
	return false
}
