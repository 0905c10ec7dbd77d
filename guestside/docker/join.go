package docker

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// join tells dockerd which link to move into a container, and how.
func (d *Driver) join(ctx context.Context, q joinRequest) (joined, error) {
	unlock, err := d.lock(ctx, "join", q.EndpointID)
	if err != nil {
		return joined{}, err
	}
	defer unlock()
	var a joined
	if err := d.change(q.EndpointID, func(s *state, e *endpoint) error {
		link, ok := d.cfg.Agent.AtHome(e.MAC)
		if !ok {
			return fmt.Errorf("its vnic %s is not in the vm's first namespace, where docker takes it from: %w", e.ID, vnic.ErrNICMissing)
		}
		e.Joined, e.since, e.away, e.back, e.forsaken = true, time.Now(), false, time.Time{}, false
		a = e.joined(link, s.Networks[e.Network])
		return nil
	}); err != nil {
		return joined{}, fmt.Errorf("join endpoint %s: %w", short(q.EndpointID), err)
	}
	return a, nil
}

// joined returns the answer to a join. Without a gateway dockerd would add one of
// its own, behind a bridge and NAT.
func (e *endpoint) joined(link string, n *network) joined {
	a := joined{InterfaceName: interfaceName{SrcName: link, DstPrefix: "eth"}}
	if n != nil {
		a.InterfaceName.DstPrefix = cmp.Or(n.Options.Prefix, "eth")
	}
	for _, gw := range e.Gateways {
		switch {
		case gw.Is4():
			a.Gateway = gw.String()
		case gw.Is6():
			a.GatewayIPv6 = gw.String()
		}
	}
	a.DisableGatewayService = a.Gateway == ""
	return a
}

// change changes a known endpoint, unless fn fails, and returns when the book has
// it. The caller holds the endpoint's lock.
func (d *Driver) change(id string, fn func(s *state, e *endpoint) error) error {
	err := fmt.Errorf("brfuse does not know it (any more); start the container again: %w", vnic.ErrNotFound)
	werr := d.book.update(func(s *state) bool {
		if e := s.Endpoints[id]; e != nil {
			next := *e
			if err = fn(s, &next); err != nil || reflect.DeepEqual(next, *e) {
				return false
			}
			s.Endpoints[id] = &next
			return true
		}
		return false
	})
	return cmp.Or(err, werr)
}

// leave notes that dockerd takes the vNIC out of its container. It succeeds when
// the endpoint is not known.
func (d *Driver) leave(ctx context.Context, q endpointRequest) (empty, error) {
	unlock, err := d.lock(ctx, "leave", q.EndpointID)
	if err != nil {
		return empty{}, err
	}
	defer unlock()
	err = d.book.update(func(s *state) bool {
		e := s.Endpoints[q.EndpointID]
		if e == nil || !e.Joined {
			return false
		}
		next := *e
		next.Joined, next.since, next.back = false, time.Now(), time.Time{}
		s.Endpoints[q.EndpointID] = &next
		return true
	})
	if err != nil {
		d.log.Error("a container's end is not on disk", "endpoint", short(q.EndpointID), "error", err)
	}
	return empty{}, nil
}
