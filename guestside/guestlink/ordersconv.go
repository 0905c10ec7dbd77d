package guestlink

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

// keyed are the requests about one attachment.
type keyed interface {
	GetPod() string
	GetInterface() string
}

func (h *host) checkKey(req keyed) error {
	return vnic.Key{VM: h.vm, Pod: req.GetPod(), Interface: req.GetInterface()}.Validate()
}

// checkNetwork checks a network's name, which may be left out where the only one
// is meant.
func checkNetwork(name string, optional bool) error {
	if name == "" && optional {
		return nil
	}
	return vnic.CheckNetworkName(name)
}

// toRequest reads what a guest asks for, which is no more to be trusted than the
// guest. All is checked that [vnic.Request.Complete] would, but for the network,
// which may be left out.
func toRequest(m *agentv1.AttachRequest, vm string) (r vnic.Request, err error) {
	r = vnic.Request{
		Key:     vnic.Key{VM: vm, Pod: m.GetPod(), Interface: m.GetInterface()},
		Network: m.GetNetwork(), Netns: m.GetNetns(), NoDefaultRoute: m.GetNoDefaultRoute(), Handover: m.GetHandover(),
		Queues: int(min(m.GetQueues(), math.MaxInt32)), MTU: int(min(m.GetMtu(), math.MaxInt32)),
		Manager: m.GetManager(), Labels: m.GetLabels(), Exact: m.GetExact(),
	}
	if len(r.Netns) > maxPath || printable(r.Netns) != r.Netns {
		return r, fmt.Errorf("netns of %d bytes, or unprintable: %w", len(r.Netns), vnic.ErrInvalid)
	}
	if err := checkNetwork(r.Network, true); err != nil {
		return r, err
	}
	if m.GetMac() != "" {
		if r.MAC, err = vnic.ParseMAC(m.GetMac()); err != nil {
			return r, err
		}
	}
	if r.Addresses, err = toAddrs(m.GetAddresses()); err != nil {
		return r, err
	}
	if r.Routes, err = toRoutes(m.GetRoutes()); err != nil {
		return r, err
	}
	if r.Ports, err = toPorts(m.GetPorts()); err != nil {
		return r, err
	}
	r.Bandwidth = toBandwidth(m.GetBandwidth())
	whole := r
	whole.Network = cmp.Or(r.Network, "any")
	_, err = whole.Complete()
	return r, err
}

func toAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("address %.64q: give a plain IPv4 or IPv6 address: %w", s, vnic.ErrInvalid)
	}
	return a, nil
}

func toAddrs(list []string) ([]netip.Addr, error) {
	if len(list) > maxAddresses {
		return nil, fmt.Errorf("%d addresses are more than %d: %w", len(list), maxAddresses, vnic.ErrInvalid)
	}
	var addrs []netip.Addr
	for _, s := range list {
		a, err := toAddr(s)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func toRoutes(list []*agentv1.Route) ([]vnic.Route, error) {
	if len(list) > vnic.MaxRoutes {
		return nil, fmt.Errorf("%d routes are more than %d: %w", len(list), vnic.MaxRoutes, vnic.ErrInvalid)
	}
	var routes []vnic.Route
	for _, m := range list {
		var r vnic.Route
		var err error
		if r.Destination, err = netip.ParsePrefix(m.GetDestination()); err != nil {
			return nil, fmt.Errorf("route to %.64q: no prefix: %w", m.GetDestination(), vnic.ErrInvalid)
		}
		if m.GetGateway() != "" {
			if r.Gateway, err = toAddr(m.GetGateway()); err != nil {
				return nil, fmt.Errorf("route to %s: %w", r.Destination, err)
			}
		}
		if err := r.Validate(); err != nil {
			return nil, err
		}
		routes = append(routes, r)
	}
	return routes, nil
}

func toPorts(list []*agentv1.PortMapping) ([]vnic.PortMapping, error) {
	if len(list) > vnic.MaxPorts {
		return nil, fmt.Errorf("%d ports are more than %d: %w", len(list), vnic.MaxPorts, vnic.ErrInvalid)
	}
	var ports []vnic.PortMapping
	for _, m := range list {
		if m.GetHostPort() > math.MaxUint16 || m.GetPort() > math.MaxUint16 {
			return nil, fmt.Errorf("port mapping %d:%d: no ports: %w", m.GetHostPort(), m.GetPort(), vnic.ErrInvalid)
		}
		p := vnic.PortMapping{HostPort: uint16(m.GetHostPort()), Port: uint16(m.GetPort()), Protocol: m.GetProtocol()}
		if m.GetHostIp() != "" {
			var err error
			if p.HostIP, err = toAddr(m.GetHostIp()); err != nil {
				return nil, err
			}
		}
		if err := p.Validate(); err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func toBandwidth(m *agentv1.Bandwidth) vnic.Bandwidth {
	return vnic.Bandwidth{
		Ingress: vnic.Rate{Bits: m.GetIngress().GetBits(), Burst: m.GetIngress().GetBurst()},
		Egress:  vnic.Rate{Bits: m.GetEgress().GetBits(), Burst: m.GetEgress().GetBurst()},
	}
}

func fromNetwork(n vnic.Network) *agentv1.Network {
	return &agentv1.Network{Name: n.Name, Subnets: texts(n.Subnets), Gateways: texts(n.Gateways), Mtu: toUint32(n.MTU)}
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

func fromAttachment(a vnic.Attachment) *agentv1.Attachment {
	r := a.Request
	m := &agentv1.Attachment{
		Id: string(a.ID), Pod: r.Pod, Interface: r.Interface, Network: r.Network, Netns: r.Netns, Phase: string(a.Phase),
		Mac: macText(a.MAC), Mtu: toUint32(a.MTU), Addresses: texts(a.Leases), Gateways: texts(a.Gateways), GuestPci: a.GuestPCI,
		Manager: r.Manager, Labels: r.Labels, Handover: r.Handover, NoDefaultRoute: r.NoDefaultRoute, Routes: fromRoutes(r.Routes),
		Bandwidth: &agentv1.Bandwidth{
			Ingress: &agentv1.Rate{Bits: r.Bandwidth.Ingress.Bits, Burst: r.Bandwidth.Ingress.Burst},
			Egress:  &agentv1.Rate{Bits: r.Bandwidth.Egress.Bits, Burst: r.Bandwidth.Egress.Burst},
		},
	}
	for _, p := range r.Ports {
		port := &agentv1.PortMapping{HostPort: uint32(p.HostPort), Port: uint32(p.Port), Protocol: p.Protocol}
		if p.HostIP.IsValid() {
			port.HostIp = p.HostIP.String()
		}
		m.Ports = append(m.Ports, port)
	}
	return m
}

// macText returns the zero MAC, which is none, as nothing.
func macText(m vnic.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}

func fromRoutes(list []vnic.Route) []*agentv1.Route {
	var routes []*agentv1.Route
	for _, r := range list {
		m := &agentv1.Route{Destination: r.Destination.String()}
		if r.Gateway.IsValid() {
			m.Gateway = r.Gateway.String()
		}
		routes = append(routes, m)
	}
	return routes
}
