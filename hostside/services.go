package hostside

import (
	"context"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/reserve"
	"github.com/brfuse/brfuse/vnic"
)

// SetServices makes ports of this hypervisor lead to pods, in place of all those before,
// and has connections end that lead to pods which are no targets any more. Services of
// networks that are not set here keep only what they have here. A port that a program or
// a pod's own mapping has stays theirs, which is logged.
func (h *Host) SetServices(ctx context.Context, all []vnic.Backend) error {
	if len(all) == 0 && len(h.guard.Services()) == 0 {
		return nil
	}
	if err := h.probeServices(); err != nil && len(all) > 0 {
		return err
	}
	inForce := map[string]guard.Service{}
	for _, s := range h.guard.Services() {
		inForce[s.Name] = s
	}
	services := make([]guard.Service, 0, len(all))
	for _, b := range all {
		if len(b.Targets) > 0 {
			services = append(services, h.service(b, inForce[b.Name]))
		}
	}
	services, release := h.reserveServices(ctx, services)
	if err := h.forwardTo(ctx, services); err != nil {
		return err
	}
	change, err := h.guard.SetServices(ctx, services)
	if err != nil {
		return err
	}
	release()
	for _, p := range change.Problems {
		h.log.Warn("a service is not all in force", "problem", p)
	}
	h.forgetStale(change)
	return nil
}

// probeServices tells whether the kernel can do what services take.
func (h *Host) probeServices() error {
	h.mu.Lock()
	can := h.canServe
	h.mu.Unlock()
	if can {
		return nil
	}
	if err := guard.ProbeServices(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.canServe = true
	return nil
}

// service is what the packet filter is told of one. Until it is known which addresses
// this hypervisor has of its own in the network, right after a start, those of the service
// that an earlier process left in force stay: its connections go on.
func (h *Host) service(b vnic.Backend, inForce guard.Service) guard.Service {
	s := guard.Service{Name: b.Name, Protocol: b.Protocol, Port: b.Port}
	for _, t := range b.Targets {
		s.Targets = append(s.Targets, guard.Target{To: t.To, Local: t.Local})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	stands, known := h.stands[b.Network]
	if !known {
		s.Source4, s.Source6 = inForce.Source4, inForce.Source6
	}
	for _, p := range stands {
		if p.Addr().Is4() {
			s.Source4 = p.Addr()
		} else {
			s.Source6 = p.Addr()
		}
	}
	return s
}

// reserveServices keeps the services' ports from other programs, and leaves out those
// that one has. What is kept no longer is let go by release.
func (h *Host) reserveServices(ctx context.Context, services []guard.Service) (kept []guard.Service, release func()) {
	before := h.guard.Services()
	var commits []func()
	for _, s := range services {
		var inForce []reserve.Port
		for _, old := range before {
			if old.Name == s.Name {
				inForce = servicePorts(old)
			}
		}
		commit, _, err := h.reserved.Set(ctx, serviceOwner(s.Name), servicePorts(s), inForce)
		if err != nil {
			h.log.Warn("a service is not in force here", "service", s.Name, "error", err)
			continue
		}
		commits = append(commits, commit)
		kept = append(kept, s)
	}
	return kept, func() {
		for _, commit := range commits {
			commit()
		}
		for _, old := range before {
			if !slices.ContainsFunc(kept, func(s guard.Service) bool { return s.Name == old.Name }) {
				h.reserved.Release(serviceOwner(old.Name))
			}
		}
	}
}

// reserveServicesAgain keeps the ports of services that an earlier process left in force.
func (h *Host) reserveServicesAgain(ctx context.Context) {
	h.reserveServices(ctx, h.guard.Services())
}

func serviceOwner(name string) string { return "service " + name }

// servicePorts are the ports of the host that a service takes: of the families of its
// targets.
func servicePorts(s guard.Service) []reserve.Port {
	var ports []reserve.Port
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if slices.ContainsFunc(s.Targets, func(t guard.Target) bool { return t.To.Addr().Is4() == all.Is4() }) {
			ports = append(ports, reserve.Port{Protocol: s.Protocol, Address: netip.AddrPortFrom(all, s.Port)})
		}
	}
	return ports
}

// forwardTo has the host forward for the families of the targets.
func (h *Host) forwardTo(ctx context.Context, services []guard.Service) error {
	var one []netip.Addr // of each family
	for _, s := range services {
		for _, t := range s.Targets {
			if !slices.ContainsFunc(one, func(a netip.Addr) bool { return a.Is4() == t.To.Addr().Is4() }) {
				one = append(one, t.To.Addr())
			}
		}
	}
	return h.links.Forward(ctx, one)
}

// forgetStale makes the kernel forget connections that a change of services has ended.
func (h *Host) forgetStale(change guard.Change) {
	families := change.Families()
	if len(families) == 0 {
		return
	}
	local, err := h.links.Addresses()
	for _, v6 := range families {
		if err == nil {
			var n int
			n, err = h.conntrack.Forget(v6, change.Stale(local))
			h.log.Debug("forgot connections of services", "ipv6", v6, "connections", n)
		}
	}
	if err != nil {
		h.log.Warn("connections to pods that are no targets of a service any more may go on", "error", err)
	}
}

// SetHostAddresses says which addresses this hypervisor has of its own in an overlay,
// beside the gateways that it shares with the others. [Host.SetNetwork] gives them to
// the bridge.
func (h *Host) SetHostAddresses(network string, addrs []netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stands[network] = slices.Clone(addrs)
}

// hostAddresses are those of a network.
func (h *Host) hostAddresses(network string) []netip.Prefix {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stands[network]
}

// BridgeMAC returns the MAC of a network's bridge: of what the hypervisor itself sends.
func (h *Host) BridgeMAC(_ context.Context, network string) (vnic.MAC, error) {
	n, err := h.network(network)
	if err != nil {
		return vnic.MAC{}, err
	}
	return h.links.BridgeMAC(n)
}
