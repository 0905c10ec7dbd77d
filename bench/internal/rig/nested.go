package rig

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/nettopo"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// nestedVNI is the number of the overlays between guests.
const nestedVNI = 4200

// nestedNet is the network of overlays between guests.
var nestedNet = netip.MustParsePrefix("10.244.0.0/24")

// podNet is the network of the pods within the node's guest.
func (n *node) podNet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 242, byte(n.number), 0}), 24)
}

// spec is the topology within the node's guest.
func (n *node) spec(kind nettopo.Kind) nettopo.Spec {
	s := nettopo.Spec{Kind: kind, Uplink: n.uplink}
	if kind != nettopo.OverlayLinux {
		s.Pod = "/run/netns/" + Pod
	}
	if kind == nettopo.OverlayLinux || kind == nettopo.OverlayNested {
		other := n.rig.nodes[1-n.number]
		s.Address = netip.PrefixFrom(n.addr(nestedNet, podHost), nestedNet.Bits())
		s.VNI, s.Local, s.Remote = nestedVNI, n.guestAddr(), other.guestAddr()
		s.RemoteMAC = nettopo.MAC(other.addr(nestedNet, podHost))
		return s
	}
	s.Gateway = n.podNet().Addr().Next()
	s.Address = netip.PrefixFrom(s.Gateway.Next(), n.podNet().Bits())
	if kind == nettopo.NAT {
		s.Publish = slices.Clone(Ports)
	}
	return s
}

// nested returns the builder of a topology within the guests.
func nested(kind nettopo.Kind) builder {
	return func(ctx context.Context, r *Rig, s *Setup) error {
		if kind == nettopo.OverlayLinux {
			s.Server, s.Client = r.nodes[0].place(""), r.client("")
		} else if err := r.addPods(ctx, s); err != nil {
			return err
		}
		for _, n := range r.nodes {
			if err := n.nest(ctx, s, n.spec(kind)); err != nil {
				return err
			}
		}
		if kind == nettopo.NAT {
			s.Addr = r.nodes[0].guestAddr()
			return nil
		}
		s.Addr = r.nodes[0].spec(kind).Address.Addr()
		if kind == nettopo.Veth || kind == nettopo.Bridged {
			return r.routePods(ctx, s)
		}
		return nil
	}
}

// nest has the guest build its part.
func (n *node) nest(ctx context.Context, s *Setup, spec nettopo.Spec) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	s.did("take down what is in guest "+n.name, func(ctx context.Context) error {
		_, err := n.place("").RunTool(ctx, "topology", "down", "--spec", string(raw))
		return err
	})
	_, err = n.place("").RunTool(ctx, "topology", "up", "--spec", string(raw))
	return err
}

// routePods tells whoever the client is with where the pods' networks are, and in a
// pair the server's guest where the client's is.
func (r *Rig) routePods(ctx context.Context, s *Setup) error {
	a := r.nodes[0]
	if !r.opts.Pair {
		return a.routeHost(s)
	}
	for i, n := range r.nodes {
		if err := n.routeGuest(ctx, s, r.nodes[1-i]); err != nil {
			return err
		}
	}
	return nil
}

// routeHost has the hypervisor reach the pods of its guest.
func (n *node) routeHost(s *Setup) error {
	b, err := n.nl.HostLink(ownBridge)
	if err != nil {
		return err
	}
	route := rtnl.Route{Route: vnic.Route{Destination: n.podNet(), Gateway: n.guestAddr()}, Index: b.Index}
	s.did("delete the route to the pods of guest "+n.name, func(context.Context) error {
		return n.conn.Do(rtnl.DelRoute(route).Tolerate(unix.ESRCH))
	})
	return n.conn.Do(rtnl.AddRoute(route))
}

// routeGuest has the guest reach the pods of the other one.
func (n *node) routeGuest(ctx context.Context, s *Setup, other *node) error {
	args := []string{"--to", other.podNet().String(), "--via", other.guestAddr().String(), "--dev", n.uplink}
	s.did("delete the route of guest "+n.name, func(ctx context.Context) error {
		_, err := n.place("").RunTool(ctx, append([]string{"route", "del"}, args...)...)
		return err
	})
	_, err := n.place("").RunTool(ctx, append([]string{"route", "add"}, args...)...)
	return err
}
