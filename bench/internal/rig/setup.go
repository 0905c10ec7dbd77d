package rig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/internal/nettopo"
)

// Pod is the name of the pod of a guest, where a topology has one.
const Pod = "bench"

// awaitPort is a port of all topologies; nothing listens while they are set up.
const awaitPort = 6000

// Ports are the ports that servers may use. Where pods have no address of their
// own, they are published, TCP and UDP, under the same numbers.
var Ports = []uint16{6000, 5201, 11111, 6379, 8080}

// builder sets a topology up, and says in s how to undo each step, server and
// client, and the address to dial.
type builder func(ctx context.Context, r *Rig, s *Setup) error

var builders = map[string]builder{
	result.Native:        native,
	result.Veth:          nested(nettopo.Veth),
	result.Bridged:       nested(nettopo.Bridged),
	result.NAT:           nested(nettopo.NAT),
	result.Fused:         fusedPods,
	result.OverlayLinux:  nested(nettopo.OverlayLinux),
	result.OverlayNested: nested(nettopo.OverlayNested),
	result.OverlayFused:  fusedPods,
}

// Topologies returns the names of the rig's topologies, in the order in which
// reports have them. Overlays take two guests.
func (r *Rig) Topologies() []string { return Topologies(r.opts.Pair) }

// Topologies returns the names of the topologies of the rig "host" or "pair".
func Topologies(pair bool) []string {
	all := []string{result.Native, result.Veth, result.Bridged, result.NAT, result.Fused}
	if pair {
		all = append(all, result.OverlayLinux, result.OverlayNested, result.OverlayFused)
	}
	return all
}

// Setup is a topology that is up.
type Setup struct {
	Topology string
	Server   *Place
	Client   *Place
	Addr     netip.Addr // what the client dials

	rig  *Rig
	undo []step // what has been done
}

type step struct {
	what string
	do   func(ctx context.Context) error
}

// did notes how to undo what has been done.
func (s *Setup) did(what string, undo func(ctx context.Context) error) {
	s.undo = append(s.undo, step{what, undo})
}

// Up sets a topology up, and returns when the server's address has answered the
// client. Nothing else may be up.
func (r *Rig) Up(ctx context.Context, topology string) (*Setup, error) {
	if r.up != nil {
		return nil, fmt.Errorf("set topology %s up: %s is up; take it down first", topology, r.up.Topology)
	}
	build, ok := builders[topology]
	if all := r.Topologies(); !ok || !slices.Contains(all, topology) {
		return nil, fmt.Errorf("set topology %s up: rig %s has no such, it has %s", topology, r.Name(), strings.Join(all, ", "))
	}
	s := &Setup{Topology: topology, rig: r}
	r.up = s
	var err error
	if topology != result.Fused && topology != result.OverlayFused {
		err = r.each(func(n *node) error { return n.renewOwn(ctx) })
	}
	if err == nil {
		err = build(ctx, r, s)
	}
	if err == nil {
		_, err = s.Client.RunTool(ctx, "await", "--to", netip.AddrPortFrom(s.Addr, awaitPort).String())
	}
	if err == nil {
		err = s.confirm(ctx)
	}
	if err != nil {
		err = fmt.Errorf("set topology %s up: %w", topology, err)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		return nil, errors.Join(err, s.Down(ctx))
	}
	return s, nil
}

// confirm has all namespaces on the way rely on their neighbours' MACs. Else those of a
// new namespace don't for 5 s, in which each packet takes a longer way through the
// kernel, 1.7 % of a datagram's instructions; native, whose namespace is old, would not
// be among them.
func (s *Setup) confirm(ctx context.Context) error {
	places := []*Place{s.Server, s.Client}
	for _, n := range s.rig.nodes {
		places = append(places, n.hostPlace(), n.place(""))
	}
	seen := map[string]bool{}
	for _, p := range places {
		if seen[p.Name] {
			continue
		}
		seen[p.Name] = true
		if _, err := p.RunTool(ctx, "neighbours", "confirm"); err != nil {
			return err
		}
	}
	return nil
}

// Down takes the topology down. It tries all of it in any case, and may be called
// again when it has failed.
func (s *Setup) Down(ctx context.Context) error {
	var errs []error
	var left []step
	for len(s.undo) > 0 {
		last := s.undo[len(s.undo)-1]
		s.undo = s.undo[:len(s.undo)-1]
		if err := last.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", last.what, err))
			left = append(left, last)
		}
	}
	slices.Reverse(left)
	s.undo = left
	if len(errs) > 0 {
		return fmt.Errorf("take topology %s down: %w", s.Topology, errors.Join(errs...))
	}
	if s.rig.up == s {
		s.rig.up = nil
	}
	return nil
}

// native has the server in the guest's first namespace.
func native(_ context.Context, r *Rig, s *Setup) error {
	a := r.nodes[0]
	s.Server, s.Addr = a.place(""), a.guestAddr()
	s.Client = r.client("")
	return nil
}

// client is where the client is: in the place of guest b, or on the hypervisor.
func (r *Rig) client(netns string) *Place {
	if r.opts.Pair {
		return r.nodes[1].place(netns)
	}
	return r.nodes[0].hostPlace()
}

// addPods makes the pod of each guest.
func (r *Rig) addPods(ctx context.Context, s *Setup) error {
	for _, n := range r.nodes {
		s.did("remove the pod of guest "+n.name, func(ctx context.Context) error {
			_, err := n.place("").RunTool(ctx, "netns", "del", Pod)
			return err
		})
		if _, err := n.place("").RunTool(ctx, "netns", "add", Pod); err != nil {
			return err
		}
	}
	s.Server, s.Client = r.nodes[0].place(Pod), r.client(Pod)
	return nil
}
