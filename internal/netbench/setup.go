package netbench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/vnic"
)

// noNative is what to do when the VMs don't reach each other.
const noNative = "give them NICs on a common network, let their firewalls pass it, or measure without: --topologies fused"

// findNative finds an address of the server VM that the client VM reaches.
func (r *run) findNative(ctx context.Context) (err error) {
	s := &setup{run: r, topology: Native}
	defer func() { err = errors.Join(err, s.down(context.WithoutCancel(ctx))) }()
	server, _, err := s.open(ctx)
	if err != nil {
		return err
	}
	if len(server.Addresses) == 0 {
		return fmt.Errorf("vm %s has no IPv4 address of its own; %s: %w", r.req.Server, noNative, vnic.ErrUnsupported)
	}
	reached, err := r.guests.BenchReach(ctx, r.req.Client, r.id, server.Addresses, server.Port)
	if err != nil {
		return err
	}
	for _, a := range server.Addresses {
		if slices.Contains(reached, a) {
			r.native = a
			return nil
		}
	}
	return fmt.Errorf("vm %s reaches vm %s by none of its addresses %v, TCP port %d; %s: %w",
		r.req.Client, r.req.Server, server.Addresses, server.Port, noNative, vnic.ErrUnsupported)
}

// setup is a topology in both VMs.
type setup struct {
	*run
	topology string
	opened   bool      // there may be places
	pods     []vnic.ID // attachments
}

// up makes the topology and starts the server, and returns where the client reaches it.
func (s *setup) up(ctx context.Context) (netip.AddrPort, error) {
	server, client, err := s.open(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if s.topology != Fused {
		return netip.AddrPortFrom(s.native, server.Port), nil
	}
	addr, err := s.attach(ctx, server, client)
	return netip.AddrPortFrom(addr, server.Port), err
}

// open makes the places in both VMs and starts the server in its one.
func (s *setup) open(ctx context.Context) (server, client guestlink.BenchPlace, err error) {
	s.opened = true
	server, err = s.guests.BenchOpen(ctx, s.req.Server, guestlink.BenchOrder{ID: s.id, Topology: s.topology, Own: s.native})
	if err != nil {
		return server, client, err
	}
	client, err = s.guests.BenchOpen(ctx, s.req.Client, guestlink.BenchOrder{ID: s.id, Topology: s.topology, Peer: s.native})
	if err != nil {
		return server, client, err
	}
	server.Port, err = s.guests.BenchServe(ctx, s.req.Server, s.id)
	return server, client, err
}

// attach gives both pods a vNIC, and returns the server's address.
func (s *setup) attach(ctx context.Context, server, client guestlink.BenchPlace) (netip.Addr, error) {
	var addr netip.Addr
	for _, p := range []struct {
		vm    string
		place guestlink.BenchPlace
	}{{s.req.Server, server}, {s.req.Client, client}} {
		if p.place.Netns == "" {
			return addr, fmt.Errorf("vm %s: its agent named no namespace for the pod: %w", p.vm, vnic.ErrUnknownPod)
		}
		a, err := s.Bench.pods.Attach(ctx, vnic.Request{
			Key:     vnic.Key{VM: p.vm, Pod: "brfuse-bench-" + s.id, Interface: "eth0"},
			Network: s.req.Network, Netns: p.place.Netns, Labels: map[string]string{Label: s.id},
		})
		if err != nil {
			return addr, err
		}
		s.pods = append(s.pods, a.ID)
		if p.vm == s.req.Server {
			if addr, err = ipv4(a); err != nil {
				return addr, err
			}
		}
	}
	return addr, nil
}

func ipv4(a vnic.Attachment) (netip.Addr, error) {
	for _, l := range a.Leases {
		if l.Addr().Is4() {
			return l.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("network %s gives pods no IPv4 address; name one that does: %w", a.Request.Network, vnic.ErrUnsupported)
}

// down removes all of it, in both VMs at once: what fails in one, or takes too long,
// doesn't keep the other from it. A vNIC is to be taken from a namespace that is
// there, so pods are detached before their places are closed.
func (s *setup) down(ctx context.Context) error {
	if !s.opened {
		return nil
	}
	return errors.Join(s.detach(ctx), s.close(ctx))
}

func (s *setup) detach(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, closeLimit, fmt.Errorf("pods are not detached within %s: %w", closeLimit, context.DeadlineExceeded))
	defer cancel()
	errs := make([]error, len(s.pods))
	var wg sync.WaitGroup
	for i, id := range s.pods {
		wg.Go(func() { _, errs[i] = s.Bench.pods.Detach(ctx, id) })
	}
	wg.Wait()
	s.pods = nil
	return errors.Join(errs...)
}

func (s *setup) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, closeLimit, fmt.Errorf("no end of it within %s: %w", closeLimit, context.DeadlineExceeded))
	defer cancel()
	var errs [2]error
	var wg sync.WaitGroup
	for i, vm := range []string{s.req.Server, s.req.Client} {
		wg.Go(func() {
			err := s.guests.BenchClose(ctx, vm, s.id)
			if errors.Is(err, vnic.ErrAgentUnavailable) || errors.Is(err, vnic.ErrUnknownVM) {
				s.log.Info("what a bench made in a vm is removed by its agent, when that is there again", "id", s.id, "vm", vm, "error", err)
				err = nil
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// Leftovers returns those attachments that benches have made.
func Leftovers(list []vnic.Attachment) (ids []vnic.ID) {
	for _, a := range list {
		if a.Request.Labels[Label] != "" && a.Request.Manager == "" {
			ids = append(ids, a.ID)
		}
	}
	return ids
}
