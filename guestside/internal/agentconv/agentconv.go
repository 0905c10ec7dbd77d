// Package agentconv turns what both ends of a VM's channel tell each other into the
// types of package vnic, and back. What it reads is checked, since either end reads
// what it didn't write; its errors wrap [vnic.ErrInvalid].
package agentconv

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

// ToAddr reads an address without a zone.
func ToAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("address %.64q: give a plain IPv4 or IPv6 address: %w", s, vnic.ErrInvalid)
	}
	return a, nil
}

// ToRoute reads a route.
func ToRoute(m *agentv1.Route) (r vnic.Route, err error) {
	if r.Destination, err = netip.ParsePrefix(m.GetDestination()); err != nil {
		return r, fmt.Errorf("route to %.64q: no prefix: %w", m.GetDestination(), vnic.ErrInvalid)
	}
	if m.GetGateway() != "" {
		if r.Gateway, err = ToAddr(m.GetGateway()); err != nil {
			return r, fmt.Errorf("route to %s: %w", r.Destination, err)
		}
	}
	return r, r.Validate()
}

// FromRoutes writes routes.
func FromRoutes(list []vnic.Route) []*agentv1.Route {
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

// ToPort reads a published port.
func ToPort(m *agentv1.PortMapping) (p vnic.PortMapping, err error) {
	if m.GetHostPort() > math.MaxUint16 || m.GetPort() > math.MaxUint16 {
		return p, fmt.Errorf("port mapping %d:%d: no ports: %w", m.GetHostPort(), m.GetPort(), vnic.ErrInvalid)
	}
	p = vnic.PortMapping{HostPort: uint16(m.GetHostPort()), Port: uint16(m.GetPort()), Protocol: m.GetProtocol()}
	if m.GetHostIp() != "" {
		if p.HostIP, err = ToAddr(m.GetHostIp()); err != nil {
			return p, err
		}
	}
	return p, p.Validate()
}

// FromPorts writes published ports.
func FromPorts(list []vnic.PortMapping) []*agentv1.PortMapping {
	var ports []*agentv1.PortMapping
	for _, p := range list {
		m := &agentv1.PortMapping{HostPort: uint32(p.HostPort), Port: uint32(p.Port), Protocol: p.Protocol}
		if p.HostIP.IsValid() {
			m.HostIp = p.HostIP.String()
		}
		ports = append(ports, m)
	}
	return ports
}

// ToBandwidth reads limits, which are not checked.
func ToBandwidth(m *agentv1.Bandwidth) vnic.Bandwidth {
	rate := func(r *agentv1.Rate) vnic.Rate { return vnic.Rate{Bits: r.GetBits(), Burst: r.GetBurst()} }
	return vnic.Bandwidth{Ingress: rate(m.GetIngress()), Egress: rate(m.GetEgress())}
}

// FromBandwidth writes limits; nil stands for none.
func FromBandwidth(b vnic.Bandwidth) *agentv1.Bandwidth {
	if b == (vnic.Bandwidth{}) {
		return nil
	}
	rate := func(r vnic.Rate) *agentv1.Rate { return &agentv1.Rate{Bits: r.Bits, Burst: r.Burst} }
	return &agentv1.Bandwidth{Ingress: rate(b.Ingress), Egress: rate(b.Egress)}
}

// Printable replaces what is not printable: it would spoil a log, a terminal or a
// table, and protobuf takes nothing that is not UTF-8.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
