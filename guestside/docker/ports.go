package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// Ports that are chosen when people leave it open (RFC 6335, section 6). Docker
// takes its own from the same.
const (
	firstDynamic = 49153
	lastDynamic  = 65535
	maxTries     = 64
)

// binding is a port that people publish by -p.
type binding struct {
	Proto       uint8
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// wanted is a mapping whose host port is to be found in low-high.
type wanted struct {
	vnic.PortMapping
	low, high uint16
}

func (w wanted) fixed() bool { return w.low == w.high }

// found says whether m is what is wanted.
func (w wanted) found(m vnic.PortMapping) bool {
	return m.HostIP == w.HostIP && m.Protocol == w.Protocol && m.Port == w.Port && w.low <= m.HostPort && m.HostPort <= w.high
}

// program publishes a container's ports on the hypervisor.
func (d *Driver) program(ctx context.Context, q programRequest) (empty, error) {
	want, err := parseBindings(q.Options[optPorts])
	if err != nil {
		return empty{}, err
	}
	unlock, err := d.lock(ctx, "publish ports of", q.EndpointID)
	if err != nil {
		return empty{}, err
	}
	defer unlock()
	var e endpoint
	if err := d.change(q.EndpointID, func(_ *state, known *endpoint) error {
		e = *known
		known.Unpublish = e.Unpublish || len(want) > 0 || len(e.Ports) > 0 // until it is known what the host has
		return nil
	}); err != nil {
		return empty{}, fmt.Errorf("publish ports of endpoint %s: %w", short(q.EndpointID), err)
	}
	if len(want) == 0 && len(e.Ports) == 0 && !e.Unpublish {
		return empty{}, nil
	}
	ports, err := d.publish(ctx, q.EndpointID, want, e.Ports)
	if err != nil {
		return empty{}, fmt.Errorf("publish ports on the hypervisor: %w", err)
	}
	return empty{}, d.change(q.EndpointID, func(_ *state, known *endpoint) error {
		known.Ports, known.Unpublish = ports, false
		return nil
	})
}

// publish publishes all of want, and returns it with the ports that were found: those
// that it had, where they do.
func (d *Driver) publish(ctx context.Context, id string, want []wanted, had []vnic.PortMapping) ([]vnic.PortMapping, error) {
	slices.SortStableFunc(want, func(a, b wanted) int { return int(a.high-a.low) - int(b.high-b.low) })
	var ports []vnic.PortMapping
	var open []wanted
	for _, w := range want {
		i := slices.IndexFunc(had, func(m vnic.PortMapping) bool { return w.found(m) && !slices.ContainsFunc(ports, m.Overlaps) })
		switch {
		case w.fixed():
			ports = append(ports, w.PortMapping)
		case i >= 0:
			ports = append(ports, had[i])
		default:
			open = append(open, w)
		}
	}
	err := d.cfg.Host.Publish(ctx, id, iface, ports)
	if errors.Is(err, vnic.ErrPortTaken) && d.endStale(ctx, id) {
		err = d.cfg.Host.Publish(ctx, id, iface, ports)
	}
	if err != nil {
		return nil, err
	}
	for _, w := range open {
		var err error
		if ports, err = d.find(ctx, id, ports, w); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// find publishes one more mapping on a port that is free.
func (d *Driver) find(ctx context.Context, id string, ports []vnic.PortMapping, w wanted) ([]vnic.PortMapping, error) {
	span := int(w.high) - int(w.low) + 1
	first := 0
	if w.low == firstDynamic { // so that two who look at once don't meet at each port
		first = rand.IntN(span)
	}
	for i := range min(span, maxTries) {
		w.HostPort = w.low + uint16((first+i)%span)
		if slices.ContainsFunc(ports, w.Overlaps) {
			continue
		}
		next := append(slices.Clone(ports), w.PortMapping)
		err := d.cfg.Host.Publish(ctx, id, iface, next)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, vnic.ErrPortTaken) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("port %d/%s: none of %d-%d is free: %w", w.Port, w.Protocol, w.low, w.high, vnic.ErrPortTaken)
}

// revoke takes the ports of a container back. When the host can't do it now it is
// done later, at the latest with the end of the endpoint.
func (d *Driver) revoke(ctx context.Context, q endpointRequest) (empty, error) {
	unlock, err := d.lock(ctx, "take back ports of", q.EndpointID)
	if err != nil {
		return empty{}, err
	}
	defer unlock()
	some := false
	err = d.change(q.EndpointID, func(_ *state, e *endpoint) error {
		some = len(e.Ports) > 0 || e.Unpublish
		e.Unpublish = some
		return nil
	})
	if !some || err != nil {
		return empty{}, nil // not known, or nothing to do
	}
	d.unpublish(ctx, q.EndpointID)
	return empty{}, nil
}

// unpublish takes back the ports of an endpoint for which that is noted. The caller
// holds its lock.
func (d *Driver) unpublish(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout/4)
	defer cancel()
	if err := d.cfg.Host.Publish(ctx, id, iface, nil); err != nil && !errors.Is(err, vnic.ErrNotFound) {
		d.log.Warn("ports of an endpoint are not taken back yet; tried again later", "endpoint", short(id), "error", err)
		return
	}
	if err := d.change(id, func(_ *state, e *endpoint) error {
		e.Ports, e.Unpublish = nil, false
		return nil
	}); err != nil {
		d.log.Error("the end of a container's ports is not on disk", "endpoint", short(id), "error", err)
	}
}

// parseBindings reads dockerd's list of ports.
func parseBindings(raw json.RawMessage) ([]wanted, error) {
	var list []binding
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("%w: option %s: %w", errMalformed, optPorts, err)
		}
	}
	var all, v6 []wanted
	for _, b := range list {
		w, err := b.wanted()
		switch {
		case err != nil:
			return nil, err
		case b.HostIP == "::":
			v6 = append(v6, w)
		case !slices.Contains(all, w):
			all = append(all, w)
		}
	}
	for _, w := range v6 { // docker may have one each for IPv4 and IPv6
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("publish port %d/%s on [::]: a port of all addresses is published for both families; leave the address out, or give one of the hypervisor's: %w",
				w.Port, w.Protocol, vnic.ErrInvalid)
		}
	}
	if len(all) > vnic.MaxPorts {
		return nil, fmt.Errorf("%d published ports are more than %d: %w", len(all), vnic.MaxPorts, vnic.ErrInvalid)
	}
	return all, nil
}

func (b binding) wanted() (wanted, error) {
	protocol, ok := map[uint8]string{6: vnic.TCP, 17: vnic.UDP, 132: vnic.SCTP}[b.Proto]
	if !ok || b.Port == 0 {
		return wanted{}, fmt.Errorf("%w: option %s: protocol %d, port %d", errMalformed, optPorts, b.Proto, b.Port)
	}
	w := wanted{
		PortMapping: vnic.PortMapping{HostPort: b.HostPort, Port: b.Port, Protocol: protocol},
		low:         b.HostPort, high: max(b.HostPort, b.HostPortEnd),
	}
	if b.HostPort == 0 {
		w.low, w.high = firstDynamic, lastDynamic
	}
	ip, err := optional(b.HostIP, netip.ParseAddr)
	if err != nil {
		return wanted{}, fmt.Errorf("%w: option %s: %w", errMalformed, optPorts, err)
	}
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback():
		return wanted{}, fmt.Errorf("publish port %d/%s on %s: ports are published on the hypervisor, whose loopback others don't reach; leave the address out or give one of the hypervisor's: %w",
			b.Port, protocol, ip, vnic.ErrInvalid)
	case ip.IsValid() && !ip.IsUnspecified():
		w.HostIP = ip
	}
	return w, nil
}
