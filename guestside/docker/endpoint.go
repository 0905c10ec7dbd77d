package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// createEndpoint has a vNIC plugged and left in the guest's first namespace. It
// answers what dockerd left open; for the rest it has to be silent.
func (d *Driver) createEndpoint(ctx context.Context, q createEndpointRequest) (createdEndpoint, error) {
	want, err := q.Interface.parse()
	if err != nil {
		return createdEndpoint{}, err
	}
	unlock, err := d.lock(ctx, "create", q.EndpointID)
	if err != nil {
		return createdEndpoint{}, err
	}
	defer unlock()
	e, err := d.endpointFor(ctx, q, want)
	if err != nil {
		return createdEndpoint{}, fmt.Errorf("create endpoint %s: %w", short(q.EndpointID), err)
	}
	return createdEndpoint{e.answer()}, nil
}

// endpointFor returns the endpoint that is there, or makes it.
func (d *Driver) endpointFor(ctx context.Context, q createEndpointRequest, want asked) (*endpoint, error) {
	var known *endpoint
	var leaving bool
	d.book.view(func(s *state) {
		known = s.Endpoints[q.EndpointID]
		_, leaving = s.Leaving[q.EndpointID]
	})
	if known != nil { // dockerd asks again when it missed the answer
		if known.Network != q.NetworkID || known.Asked != want {
			return nil, vnic.ErrConflict
		}
		d.book.view(func(*state) { known.forsaken = false })
		return known, nil
	}
	if leaving {
		if err := d.detach(ctx, q.EndpointID); err != nil {
			return nil, fmt.Errorf("take its earlier vnic away: %w", err)
		}
	}
	n, err := d.networkOf(q.NetworkID)
	if err != nil {
		return nil, err
	}
	req, err := n.request(q, want)
	if err != nil {
		return nil, err
	}
	att, err := d.cfg.Host.Attach(ctx, req)
	if err != nil {
		return nil, d.attachFailed(q.EndpointID, n, want, err)
	}
	d.ipam.taken(n.Name, req.Addresses)
	e := newEndpoint(q.NetworkID, n, want, att)
	if err := d.record(q.EndpointID, e); err != nil {
		return nil, errors.Join(err, d.forget(q.EndpointID))
	}
	return e, nil
}

// record puts an endpoint into the book, unless it or its network was deleted
// meanwhile.
func (d *Driver) record(id string, e *endpoint) error {
	gone := false
	err := d.book.update(func(s *state) bool {
		_, gone = s.Leaving[id]
		gone = gone || s.Networks[e.Network] == nil
		if !gone {
			s.Endpoints[id] = e
		}
		return !gone
	})
	if gone {
		return fmt.Errorf("it or its network was deleted meanwhile: %w", vnic.ErrNotFound)
	}
	return err
}

// forget takes an endpoint from the book; its vNIC is owed.
func (d *Driver) forget(id string) error {
	err := d.book.update(func(s *state) bool {
		delete(s.Endpoints, id)
		s.Leaving[id] = struct{}{}
		return true
	})
	return err
}

// attachFailed returns what people are told. When it is not certain that the host
// has undone everything, it is done later.
func (d *Driver) attachFailed(id string, n *network, want asked, err error) error {
	if code := vnic.CodeOf(err); code == "" || errors.Is(err, vnic.ErrHostUnavailable) {
		err = errors.Join(err, d.owe(id))
	}
	if errors.Is(err, vnic.ErrAddressTaken) && !want.MAC.IsZero() {
		return fmt.Errorf("attach to network %s: another vnic has the address or the mac %s: %w", n.Name, want.MAC, err)
	}
	if errors.Is(err, vnic.ErrAddressTaken) || errors.Is(err, vnic.ErrAddressOutside) {
		return fmt.Errorf("attach to network %s: docker chose the address without the hypervisor, which others use as well; create the network with `--ipam-driver %s`, or choose by --ip: %w",
			n.Name, d.name, err)
	}
	return fmt.Errorf("attach to network %s: %w", n.Name, err)
}

// networkOf returns a docker network. One that is not known, or whose options are
// not, because the file is lost, takes no new endpoints: a guess could lead into
// another network, or past its limits.
func (d *Driver) networkOf(id string) (*network, error) {
	var n *network
	d.book.view(func(s *state) { n = s.Networks[id] })
	switch {
	case n == nil:
		return nil, fmt.Errorf("docker's network %s is not known any more; remove it and create it again: %w", short(id), vnic.ErrUnknownNetwork)
	case n.Adopted:
		return nil, fmt.Errorf("docker's network %s is not known any more with its options, only by its containers; remove it and create it again: %w",
			short(id), vnic.ErrUnknownNetwork)
	}
	return n, nil
}

// request asks the host for an endpoint's vNIC.
func (n *network) request(q createEndpointRequest, want asked) (vnic.Request, error) {
	o, err := n.Options.of(q.Options)
	if err != nil {
		return vnic.Request{}, err
	}
	req := vnic.Request{
		Key:     vnic.Key{Pod: q.EndpointID, Interface: iface},
		Network: n.Name, MAC: want.MAC, MTU: o.MTU, Queues: o.Queues, Bandwidth: o.Bandwidth,
		NoDefaultRoute: n.Internal, Handover: true, Manager: manager,
		Labels: map[string]string{labelNetwork: q.NetworkID, labelEndpoint: q.EndpointID},
	}
	for _, p := range want.prefixes() {
		if !slices.Contains(n.Subnets, p.Masked()) {
			return vnic.Request{}, fmt.Errorf("address %s is in no subnet of network %s, which has %s: %w", p, n.Name, joinText(n.Subnets), vnic.ErrAddressOutside)
		}
		req.Addresses = append(req.Addresses, p.Addr())
	}
	req.Exact = len(req.Addresses) > 0 // else dockerd knows of none, and is told
	return req, nil
}

// newEndpoint returns the endpoint of an attachment. dockerd knows of the addresses
// that it asked for; when it asked for none, because the network's addresses are not
// its business (null IPAM), it is told all.
func newEndpoint(networkID string, n *network, want asked, att vnic.Attachment) *endpoint {
	e := &endpoint{
		Network: networkID, Asked: want, ID: att.ID, VNIC: att.VNIC(), Name: n.Name, MAC: att.MAC, PCI: att.GuestPCI,
		Ports: att.Request.Ports, since: time.Now(),
	}
	for i, p := range att.Leases {
		if given := want.prefixes(); len(given) > 0 && !slices.Contains(given, p) {
			continue
		}
		var gw netip.Addr
		if i < len(att.Gateways) && !n.Internal {
			gw = att.Gateways[i]
		}
		e.Addresses = append(e.Addresses, p)
		e.Gateways = append(e.Gateways, gw)
	}
	return e
}

// answer returns what dockerd left open in its request.
func (e *endpoint) answer() (a endpointInterface) {
	if e.Asked.MAC.IsZero() {
		a.MacAddress = e.MAC.String()
	}
	for _, p := range e.Addresses {
		switch {
		case p.Addr().Is4() && !e.Asked.IPv4.IsValid():
			a.Address = p.String()
		case p.Addr().Is6() && !e.Asked.IPv6.IsValid():
			a.AddressIPv6 = p.String()
		}
	}
	return a
}

// parse reads an interface as dockerd asks for it.
func (i endpointInterface) parse() (a asked, err error) {
	var err4, err6, errMAC error
	a.IPv4, err4 = optional(i.Address, netip.ParsePrefix)
	a.IPv6, err6 = optional(i.AddressIPv6, netip.ParsePrefix)
	a.MAC, errMAC = optional(i.MacAddress, vnic.ParseMAC)
	switch {
	case errMAC != nil: // people give it, so it is theirs to put right
		return a, errMAC
	case err4 != nil || err6 != nil:
		return a, fmt.Errorf("%w: %w", errMalformed, cmp.Or(err4, err6))
	case a.IPv4.IsValid() && !a.IPv4.Addr().Is4() || a.IPv6.IsValid() && !a.IPv6.Addr().Is6():
		return a, fmt.Errorf("%w: address of the other family", errMalformed)
	}
	return a, nil
}

func (a asked) prefixes() (list []netip.Prefix) {
	for _, p := range []netip.Prefix{a.IPv4, a.IPv6} {
		if p.IsValid() {
			list = append(list, p)
		}
	}
	return list
}

// operInfo tells what people find in a debugging dockerd's log. It has no key of
// Docker's own: dockerd expects its own Go types in those.
func (d *Driver) operInfo(_ context.Context, q endpointRequest) (endpointInfo, error) {
	info := endpointInfo{Value: map[string]any{}}
	d.book.view(func(s *state) {
		e := s.Endpoints[q.EndpointID]
		if e == nil {
			return
		}
		info.Value = map[string]any{
			ownPrefix + "attachment": e.ID, ownPrefix + "network": e.Name, ownPrefix + "mac": e.MAC,
			ownPrefix + "pci": e.PCI, ownPrefix + "tap": e.vnic().TapName(),
		}
		if len(e.Ports) > 0 {
			info.Value[ownPrefix+"ports"] = joinText(e.Ports)
		}
	})
	return info, nil
}

// deleteEndpoint takes an endpoint's vNIC away, wherever it is and whatever name,
// MAC or MTU it has. It succeeds also when the host is away: dockerd doesn't ask
// again.
func (d *Driver) deleteEndpoint(ctx context.Context, q endpointRequest) (empty, error) {
	unlock, err := d.lock(ctx, "delete", q.EndpointID)
	if err != nil { // another call about it hangs
		return empty{}, d.forget(q.EndpointID)
	}
	defer unlock()
	known := false
	if err := d.book.update(func(s *state) bool {
		_, known = s.Leaving[q.EndpointID]
		if known = known || s.Rebuild || s.Endpoints[q.EndpointID] != nil; !known {
			return false
		}
		delete(s.Endpoints, q.EndpointID)
		s.Leaving[q.EndpointID] = struct{}{}
		return true
	}); err != nil {
		d.log.Error("an endpoint's end is not on disk", "endpoint", short(q.EndpointID), "error", err)
	}
	if known {
		_ = d.detach(ctx, q.EndpointID) // logged, and owed
	}
	return empty{}, nil
}
