package daemon

import (
	"fmt"
	"math"
	"net/netip"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

// defaultInterface is the name that a pod's first interface has everywhere.
const defaultInterface = "eth0"

func attachmentToProto(a vnic.Attachment) *brfusev1.Attachment {
	m := &brfusev1.Attachment{
		Id: string(a.ID), Vm: a.Request.VM, Pod: a.Request.Pod, Interface: a.Request.Interface,
		Network: a.Request.Network, Netns: a.Request.Netns, Phase: string(a.Phase),
		Addresses: toStrings(a.Leases), Gateways: toStrings(a.Gateways),
		Mtu: clampUint32(a.MTU), Queues: clampUint32(a.Request.Queues),
		Tap: a.VNIC().TapName(), Device: string(a.VNIC()), Slot: a.Slot, GuestPci: a.GuestPCI, LastError: a.LastError,
		Manager: a.Request.Manager, Labels: a.Request.Labels, Ports: toStrings(a.Request.Ports), Handover: a.Request.Handover,
		IngressRate: a.Request.Bandwidth.Ingress.Bits, EgressRate: a.Request.Bandwidth.Egress.Bits,
	}
	if !a.MAC.IsZero() {
		m.Mac = a.MAC.String()
	}
	if !a.Created.IsZero() {
		m.Created = timestamppb.New(a.Created)
	}
	for _, t := range a.Timings {
		m.Timings = append(m.Timings, &brfusev1.Timing{Step: t.Step, Duration: durationpb.New(t.Duration)})
	}
	return m
}

func requestFromProto(m *brfusev1.AttachRequest) (vnic.Request, error) {
	r := vnic.Request{
		Key:     vnic.Key{VM: m.GetVm(), Pod: m.GetPod(), Interface: m.GetInterface()},
		Network: m.GetNetwork(), Netns: m.GetNetns(), NoDefaultRoute: m.GetNoDefaultRoute(),
		Queues: clampInt(m.GetQueues()), MTU: clampInt(m.GetMtu()), Labels: m.GetLabels(),
	}
	if r.Interface == "" {
		r.Interface = defaultInterface
	}
	if m.GetMac() != "" {
		mac, err := vnic.ParseMAC(m.GetMac())
		if err != nil {
			return r, err
		}
		r.MAC = mac
	}
	for _, s := range m.GetAddresses() {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return r, fmt.Errorf("address %q: give an address such as 10.1.0.5: %w", s, vnic.ErrInvalid)
		}
		r.Addresses = append(r.Addresses, a)
	}
	return r, nil
}

func networkToProto(n vnic.Network) *brfusev1.Network {
	return &brfusev1.Network{
		Name: n.Name, Bridge: n.Bridge, External: n.External,
		Subnets: toStrings(n.Subnets), Gateways: toStrings(n.Gateways),
		Masquerade: n.Masquerade, Mtu: clampUint32(n.MTU),
		Kind: string(n.Kind), Vni: n.VNI, Uplink: n.Uplink, Vlan: clampUint32(n.VLAN), Unaddressed: n.Unaddressed,
	}
}

func networkFromProto(m *brfusev1.Network) (vnic.Network, error) {
	n := vnic.Network{
		Name: m.GetName(), Bridge: m.GetBridge(), External: m.GetExternal(),
		Masquerade: m.GetMasquerade(), MTU: clampInt(m.GetMtu()),
		Kind: vnic.NetworkKind(m.GetKind()), VNI: m.GetVni(), Uplink: m.GetUplink(), VLAN: clampInt(m.GetVlan()), Unaddressed: m.GetUnaddressed(),
	}
	for _, s := range m.GetSubnets() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return n, fmt.Errorf("subnet %q: give a prefix such as 10.1.0.0/24: %w", s, vnic.ErrInvalid)
		}
		n.Subnets = append(n.Subnets, p)
	}
	for _, s := range m.GetGateways() {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return n, fmt.Errorf("gateway %q: give an address such as 10.1.0.1: %w", s, vnic.ErrInvalid)
		}
		n.Gateways = append(n.Gateways, a)
	}
	return n, nil
}

func toStrings[T fmt.Stringer](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = v.String()
	}
	return out
}

// clampInt keeps a number that is too large too large, for validation to refuse.
func clampInt(v uint32) int { return int(min(uint64(v), math.MaxInt)) }

func clampUint32(v int) uint32 { return uint32(min(max(v, 0), math.MaxInt32)) }
