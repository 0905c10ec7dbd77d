package netpath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// walk is a walk under way. It ends by setting path.End.
type walk struct {
	o       Options
	path    Path
	own     *netnsx.NS
	views   []*view
	seen    map[place]bool
	gateway netip.Addr // where the packet goes next; invalid: a neighbour, or not known
	onLink  bool       // the packet goes to a neighbour for sure
}

// place is a link in a namespace.
type place struct {
	ns    netnsx.ID
	index int
}

func (w *walk) close() error {
	var errs []error
	for _, v := range w.views {
		errs = append(errs, v.close())
	}
	if w.own != nil {
		errs = append(errs, w.own.Close())
	}
	return errors.Join(errs...)
}

// open returns the view of a namespace, which becomes the walk's.
func (w *walk) open(ctx context.Context, ns *netnsx.NS, name string) (*view, error) {
	for _, v := range w.views {
		if v.ns.ID() == ns.ID() {
			return v, ns.Close()
		}
	}
	if len(w.views) == maxNamespaces {
		return nil, errors.Join(fmt.Errorf("more than %d namespaces", maxNamespaces), ns.Close())
	}
	v, err := openView(ctx, ns)
	if err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	v.index = len(w.views)
	w.views = append(w.views, v)
	w.path.Namespaces = append(w.path.Namespaces, v.describe(name, ns.ID() == w.own.ID()))
	w.note(v.rules.notes...)
	return v, nil
}

// other opens the namespace that v knows by an id; -1 is v itself.
func (w *walk) other(ctx context.Context, v *view, id int) (*view, error) {
	if id < 0 {
		return v, nil
	}
	for _, known := range w.views {
		got := -1
		if err := v.conn.Do(rtnl.GetNetnsID(&got, known.ns.FD())); err == nil && got == id {
			return known, nil
		}
	}
	got := -1
	if err := v.conn.Do(rtnl.GetNetnsID(&got, w.own.FD())); err == nil && got == id {
		ns, err := netnsx.Current()
		if err != nil {
			return nil, err
		}
		return w.open(ctx, ns, self)
	}
	ns, name, err := v.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return w.open(ctx, ns, name)
}

func (w *walk) end(format string, args ...any) error {
	w.path.End = fmt.Sprintf(format, args...)
	return nil
}

// note adds notes, each once.
func (w *walk) note(notes ...string) {
	for _, n := range notes {
		if !slices.Contains(w.path.Notes, n) {
			w.path.Notes = append(w.path.Notes, n)
		}
	}
}

func (w *walk) hop(h Hop) { w.path.Hops = append(w.path.Hops, h) }

// hook adds a hook, if a chain is there.
func (w *walk) hook(v *view, name string, bridge bool, d Direction) {
	if chains := v.rules.at(name, bridge); len(chains) > 0 {
		w.hop(Hop{Namespace: v.index, Hook: &Hook{Name: name, Bridge: bridge, Direction: d, Chains: chains}})
	}
}

// ended is the hooks of a packet that a namespace itself sends, and of the answer.
func (w *walk) ended(v *view) {
	w.hook(v, "input", false, In)
	w.hook(v, "output", false, Out)
	w.hook(v, "postrouting", false, Out)
	w.hook(v, "prerouting", false, In)
}

// enter adds a device to the path. It is false when the walk must end there.
func (w *walk) enter(v *view, l rtnl.PathLink) bool {
	key := place{v.ns.ID(), l.Index}
	if w.seen[key] {
		_ = w.end("the path comes back to %s: it is a loop", l.Name)
		return false
	}
	if len(w.path.Hops) >= maxHops {
		_ = w.end("more than %d hops", maxHops)
		return false
	}
	w.seen[key] = true
	d, notes := v.device(l)
	w.note(notes...)
	w.hop(Hop{Namespace: v.index, Device: d})
	return true
}

// leave has the packet leave by a link.
func (w *walk) leave(ctx context.Context, v *view, l rtnl.PathLink) error {
	if !w.enter(v, l) {
		return nil
	}
	switch l.Kind {
	case "":
		if l.Flags&unix.IFF_LOOPBACK != 0 {
			return w.end("%s is the loopback: nothing leaves the namespace by it", l.Name)
		}
		return w.end("%s is a NIC: the wire is behind it", l.Name)
	case "veth":
		return w.across(ctx, v, l, w.arrive)
	case "vlan", "macvlan", "macvtap", "ipvlan":
		return w.across(ctx, v, l, w.leave)
	case "vxlan":
		return w.tunnel(ctx, v, l)
	case "bridge":
		return w.ports(ctx, v, l)
	case "tun":
		return w.end("%s is a tap: a program is behind it", l.Name)
	}
	return w.end("what is behind %s, a device of kind %s, is not known", l.Name, l.Kind)
}

// across goes on at a link's other end, or lower device.
func (w *walk) across(ctx context.Context, v *view, l rtnl.PathLink, next func(context.Context, *view, rtnl.PathLink) error) error {
	there, err := w.other(ctx, v, l.PeerNetns)
	if err != nil {
		return w.end("the other end of %s is in a namespace that can't be looked at: %v", l.Name, err)
	}
	peer, err := there.link(l.Peer)
	if errors.Is(err, unix.ENODEV) {
		return w.end("the other end of %s is gone", l.Name)
	}
	if err != nil {
		return err
	}
	return next(ctx, there, peer)
}

// arrive has the packet come in by a link. What a guest sends by a macvtap does not come
// in: it leaves by the device below.
func (w *walk) arrive(ctx context.Context, v *view, l rtnl.PathLink) error {
	if l.Kind == "macvtap" {
		return w.leave(ctx, v, l)
	}
	if !w.enter(v, l) {
		return nil
	}
	if l.Master == 0 {
		return w.forward(ctx, v)
	}
	m, err := v.link(l.Master)
	if err != nil {
		return err
	}
	if m.Kind == "bridge" {
		return w.bridged(ctx, v, l, m)
	}
	if !w.enter(v, m) {
		return nil
	}
	return w.forward(ctx, v)
}
