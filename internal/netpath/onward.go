package netpath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// bridged has the packet come to a bridge by one of its ports: it is for the bridge
// itself and routed on, or leaves by another port.
func (w *walk) bridged(ctx context.Context, v *view, from, bridge rtnl.PathLink) error {
	port := w.port(v, from.Index, bridge.Index)
	if w.forBridge(v, bridge.Index, port != nil) {
		w.hook(v, "prerouting", true, Both)
		w.hook(v, "input", true, Out)
		w.hook(v, "output", true, In)
		w.hook(v, "postrouting", true, In)
		if !w.enter(v, bridge) {
			return nil
		}
		return w.forward(ctx, v)
	}
	for _, name := range []string{"prerouting", "forward", "postrouting"} {
		w.hook(v, name, true, Both)
		if w.path.Namespaces[v.index].BridgeFilter {
			w.hook(v, name, false, Both)
		}
	}
	if !w.enter(v, bridge) {
		return nil
	}
	switch {
	case port == nil && w.onLink && w.o.To.IsValid():
		return w.end("%s is a neighbour on bridge %s, behind none of the ports that are known", w.o.To, bridge.Name)
	case port == nil:
		return w.end("bridge %s has neither the packet's gateway nor a port that leads on", bridge.Name)
	}
	l, err := v.link(port.Index)
	if err != nil {
		return err
	}
	return w.leave(ctx, v, l)
}

// port returns the port of a bridge by which a packet leaves that came by from: the one
// that its destination is known to be behind, or one that leads on.
func (w *walk) port(v *view, from, bridge int) *rtnl.Link {
	if w.onLink && w.o.Port != "" {
		for i, l := range v.links {
			if l.Master == bridge && l.Index != from && l.Name == w.o.Port {
				return &v.links[i]
			}
		}
	}
	return v.uplink(from, bridge)
}

// forBridge tells whether the packet is for a bridge itself.
func (w *walk) forBridge(v *view, bridge int, hasUplink bool) bool {
	for _, a := range v.addrs {
		if a.Index != bridge || a.Prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		if w.onLink && a.Prefix.Addr() == w.o.To || w.gateway.IsValid() && a.Prefix.Addr() == w.gateway || !w.gateway.IsValid() && !w.onLink && !hasUplink {
			return true
		}
	}
	return false
}

// uplink returns the port of a bridge that leads on: a VXLAN device, or else a NIC
// or a VLAN of one.
func (v *view) uplink(from, bridge int) *rtnl.Link {
	var best *rtnl.Link
	for i, l := range v.links {
		if l.Master != bridge || l.Index == from {
			continue
		}
		switch l.Kind {
		case "vxlan":
			return &v.links[i]
		case "", "vlan", "bond", "team":
			best = &v.links[i]
		}
	}
	return best
}

// ports has a packet of the namespace itself leave by a bridge.
func (w *walk) ports(ctx context.Context, v *view, bridge rtnl.PathLink) error {
	w.hook(v, "output", true, Out)
	w.hook(v, "postrouting", true, Out)
	port := v.uplink(0, bridge.Index)
	if port == nil {
		return w.end("bridge %s has no port that leads on", bridge.Name)
	}
	l, err := v.link(port.Index)
	if err != nil {
		return err
	}
	return w.leave(ctx, v, l)
}

// forward has the packet routed by a namespace that it only passes.
func (w *walk) forward(ctx context.Context, v *view) error {
	w.hook(v, "prerouting", false, Both)
	h, to, err := v.lookUp(w.o.To)
	if err != nil {
		return err
	}
	if h.Local {
		w.hook(v, "input", false, Out)
		return w.end("%s is an address of this namespace", to)
	}
	if h.Index == 0 {
		return w.end("there is no %s here; name a destination by --to", routeTo(to))
	}
	l, err := v.link(h.Index)
	if err != nil {
		return err
	}
	w.hop(Hop{Namespace: v.index, Route: &Route{To: to, Gateway: h.Gateway, Device: l.Name, Forwarding: true}})
	n := w.path.Namespaces[v.index]
	if w.o.To.Is6() && !n.Forwarding6 || !w.o.To.Is6() && !n.Forwarding {
		w.note("namespace " + n.Name + " does not forward: packets end there")
	}
	w.hook(v, "forward", false, Both)
	w.hook(v, "postrouting", false, Both)
	w.gateway, w.onLink = h.Gateway, !h.Gateway.IsValid()
	return w.leave(ctx, v, l)
}

// routeTo names a route.
func routeTo(to string) string {
	if to == byDefault {
		return "default route"
	}
	return "route to " + to
}

// byDefault is the destination of a default route.
const byDefault = "default"

// lookUp returns the way to an address; without one, the default route. There is
// none when its index is 0.
func (v *view) lookUp(to netip.Addr) (h rtnl.Hop, name string, err error) {
	if to.IsValid() {
		err := v.conn.Do(rtnl.LookUpRoute(&h, to))
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			err = nil
		}
		return h, to.String(), err
	}
	for _, bits := range []int{32, 128} {
		for _, r := range v.routes {
			if r.Destination.Bits() == 0 && r.Destination.Addr().BitLen() == bits && r.Index != 0 {
				return rtnl.Hop{Index: r.Index, Gateway: r.Gateway}, byDefault, nil
			}
		}
	}
	return h, byDefault, nil
}

// route adds the route of the pod itself, and notes where its packets go.
func (w *walk) route(v *view, l rtnl.PathLink) {
	h, to, err := v.lookUp(w.o.To)
	switch {
	case err != nil:
		w.note(err.Error())
	case h.Index == 0: // no default route: the neighbours are all that it reaches
		w.onLink = true
	case h.Index != l.Index:
		w.onLink = !w.o.To.IsValid()
		w.note("the " + routeTo(to) + " is not over " + l.Name)
	default:
		w.gateway, w.onLink = h.Gateway, !h.Gateway.IsValid()
		w.hop(Hop{Namespace: v.index, Route: &Route{To: to, Gateway: h.Gateway, Device: l.Name}})
	}
}

// tunnel has the packet go on inside of another, which the namespace that the VXLAN
// device sends in makes.
func (w *walk) tunnel(ctx context.Context, v *view, l rtnl.PathLink) error {
	under, err := w.other(ctx, v, l.PeerNetns)
	if err != nil {
		return w.end("%s sends in a namespace that can't be looked at: %v", l.Name, err)
	}
	remote := l.VXLAN.Remote
	if !remote.IsValid() {
		var ends []netip.Addr
		if err := v.conn.Do(rtnl.GetTunnelEnds(&ends, l.Index)); err != nil {
			return err
		}
		if len(ends) > 1 {
			w.note(fmt.Sprintf("%s sends to %d hosts; the path is that to %s", l.Name, len(ends), ends[0]))
		}
		if len(ends) > 0 {
			remote = ends[0]
		}
	}
	w.path.Hops[len(w.path.Hops)-1].Device.VXLAN.Remote = remote
	w.o.To = remote // of the outer packet
	h, to, err := under.lookUp(remote)
	if err != nil {
		return err
	}
	if l.VXLAN.Lower != 0 {
		h.Index = l.VXLAN.Lower
	}
	if h.Index == 0 {
		return w.end("there is no %s for what %s sends", routeTo(to), l.Name)
	}
	lower, err := under.link(h.Index)
	if err != nil {
		return err
	}
	w.hop(Hop{Namespace: under.index, Route: &Route{To: to, Gateway: h.Gateway, Device: lower.Name, Outer: true}})
	w.ended(under)
	w.gateway, w.onLink = h.Gateway, !h.Gateway.IsValid()
	return w.leave(ctx, under, lower)
}
