package docker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// compare brings the driver's endpoints and the host's attachments together. It
// returns false when the host could not be asked.
func (d *Driver) compare(ctx context.Context) bool {
	var known []string
	rebuild := false
	d.book.view(func(s *state) {
		known, rebuild = slices.Collect(maps.Keys(s.Endpoints)), s.Rebuild
	})
	actx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	list, err := d.cfg.Host.Attachments(actx, manager)
	if err != nil {
		d.log.Debug("docker driver: the host's attachments can't be listed", "error", err)
		return false
	}
	has := map[string]vnic.ID{}
	for _, a := range list {
		if a.Phase == vnic.PhaseDetaching || a.Phase == vnic.PhaseReleased {
			continue
		}
		has[a.Request.Pod] = a.ID
		d.meet(ctx, a, rebuild)
	}
	for _, id := range known {
		d.miss(ctx, id, has[id])
	}
	if rebuild {
		if err := d.book.update(func(s *state) bool { s.Rebuild = false; return true }); err != nil {
			d.log.Error("docker driver: rebuilt state is not on disk", "error", err)
		}
	}
	return true
}

// meet takes away an attachment of which the driver doesn't know, or takes it in
// when what the driver knew is lost.
func (d *Driver) meet(ctx context.Context, a vnic.Attachment, rebuild bool) {
	id := a.Request.Pod
	unlock, ok := d.locks.TryLock(id)
	if !ok {
		return // a call is about it
	}
	defer unlock()
	known := false
	d.book.view(func(s *state) {
		_, leaving := s.Leaving[id]
		known = leaving || s.Endpoints[id] != nil
	})
	switch {
	case known:
	case rebuild && a.Phase == vnic.PhaseReady:
		d.adopt(a)
	default:
		d.log.Warn("a vnic of docker that no endpoint has is taken away", "endpoint", short(id), "attachment", a.ID)
		_ = d.detach(ctx, id) // logged, and owed
	}
}

// adopt makes an endpoint of an attachment.
func (d *Driver) adopt(a vnic.Attachment) {
	networkID := a.Request.Labels[labelNetwork]
	e := &endpoint{
		Network: networkID, ID: a.ID, VNIC: a.VNIC(), Name: a.Request.Network, MAC: a.MAC, PCI: a.GuestPCI,
		Addresses: a.Leases, Ports: a.Request.Ports, since: time.Now(), away: true,
	}
	if !a.Request.NoDefaultRoute && len(a.Gateways) == len(a.Leases) {
		e.Gateways = a.Gateways
	}
	_, home := d.cfg.Agent.AtHome(a.MAC)
	e.Joined, e.forsaken = !home, home
	n := &network{Name: e.Name, Gateways: a.Gateways, Internal: a.Request.NoDefaultRoute, Adopted: true}
	for _, p := range a.Leases {
		n.Subnets = append(n.Subnets, p.Masked())
	}
	err := d.book.update(func(s *state) bool {
		s.Endpoints[a.Request.Pod] = e
		if s.Networks[networkID] == nil && len(n.Gateways) == len(n.Subnets) && checkID("network", networkID) == nil {
			s.Networks[networkID] = n
		}
		return true
	})
	d.log.Warn("an endpoint of docker is known again", "endpoint", short(a.Request.Pod), "attachment", a.ID, "joined", e.Joined, "error", err)
}

// miss forgets an endpoint whose attachment the host doesn't have any more: has is
// what it has instead, if anything.
func (d *Driver) miss(ctx context.Context, id string, has vnic.ID) {
	unlock, ok := d.locks.TryLock(id)
	if !ok {
		return
	}
	defer unlock()
	gone := false
	err := d.book.update(func(s *state) bool {
		e := s.Endpoints[id]
		if gone = e != nil && e.ID != has; !gone {
			return false
		}
		delete(s.Endpoints, id)
		if has != "" {
			s.Leaving[id] = struct{}{}
		}
		return true
	})
	if gone {
		d.log.Warn("an endpoint whose vnic is gone is forgotten", "endpoint", short(id), "error", err)
	}
	if gone && has != "" {
		_ = d.detach(ctx, id) // logged, and owed
	}
}
