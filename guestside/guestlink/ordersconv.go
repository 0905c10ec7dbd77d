package guestlink

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
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
	if r.Routes, err = readAll("routes", m.GetRoutes(), vnic.MaxRoutes, agentconv.ToRoute); err != nil {
		return r, err
	}
	if r.Ports, err = toPorts(m.GetPorts()); err != nil {
		return r, err
	}
	r.Bandwidth = agentconv.ToBandwidth(m.GetBandwidth())
	whole := r
	whole.Network = cmp.Or(r.Network, "any")
	_, err = whole.Complete()
	return r, err
}

func toAddrs(list []string) ([]netip.Addr, error) {
	return readAll("addresses", list, maxAddresses, agentconv.ToAddr)
}

func toPorts(list []*agentv1.PortMapping) ([]vnic.PortMapping, error) {
	return readAll("ports", list, vnic.MaxPorts, agentconv.ToPort)
}

// readAll reads a list that may have no more than limit elements.
func readAll[M, V any](what string, list []M, limit int, read func(M) (V, error)) ([]V, error) {
	if len(list) > limit {
		return nil, fmt.Errorf("%d %s are more than %d: %w", len(list), what, limit, vnic.ErrInvalid)
	}
	var all []V
	for _, m := range list {
		v, err := read(m)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
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
	return &agentv1.Attachment{
		Id: string(a.ID), Device: string(a.Device), Pod: r.Pod, Interface: r.Interface, Network: r.Network, Netns: r.Netns, Phase: string(a.Phase),
		Mac: macText(a.MAC), Mtu: toUint32(a.MTU), Addresses: texts(a.Leases), Gateways: texts(a.Gateways), GuestPci: a.GuestPCI,
		Manager: r.Manager, Labels: r.Labels, Handover: r.Handover, NoDefaultRoute: r.NoDefaultRoute,
		Routes: agentconv.FromRoutes(r.Routes), Ports: agentconv.FromPorts(r.Ports), Bandwidth: agentconv.FromBandwidth(r.Bandwidth),
		Nameservers: texts(a.DNS.Nameservers), Search: a.DNS.Search, DnsOptions: a.DNS.Options,
	}
}

// macText returns the zero MAC, which is none, as nothing.
func macText(m vnic.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}
