package nettopo

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// Kind is the shape of a topology.
type Kind string

// The kinds of topologies.
const (
	Veth          Kind = "veth"
	Bridged       Kind = "bridged"
	NAT           Kind = "nat"
	OverlayLinux  Kind = "overlay-linux"
	OverlayNested Kind = "overlay-nested"
)

// Kinds returns all of them, in the order of their cost.
func Kinds() []Kind { return []Kind{Veth, Bridged, NAT, OverlayLinux, OverlayNested} }

// overlay tells whether k has a VXLAN device.
func (k Kind) overlay() bool { return k == OverlayLinux || k == OverlayNested }

// Spec is a topology for one pod. All addresses are IPv4.
type Spec struct {
	Kind Kind `json:"kind"`
	// Pod is the pod's network namespace as [netnsx.Open] takes it: a path, a name or a
	// process. Required but for overlay-linux, which has none.
	Pod string `json:"pod,omitempty"`
	// Interface is the name of the pod's interface. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Address is that of the pod, or of the VXLAN device for overlay-linux, with the
	// prefix of its network. The MAC is [MAC] of it.
	Address netip.Prefix `json:"address"`
	// Gateway is the pod's default route, and the first namespace's address towards the
	// pod. Required for veth, bridged and nat.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Uplink is the NIC of the first namespace that packets come in by and leave by.
	Uplink string `json:"uplink"`
	// Publish are the ports that lead to the same ones of the pod, for TCP and UDP,
	// wherever the uplink's packets ask for one of this namespace's addresses. Required
	// for nat, and for nothing else.
	Publish []uint16 `json:"publish,omitempty"`
	// VNI is the overlay's number, from 1 to 1<<24-1. Required for overlays.
	VNI uint32 `json:"vni,omitempty"`
	// Local and Remote are the ends of the tunnel. Required for overlays. Local is an
	// address of the uplink.
	Local  netip.Addr `json:"local,omitzero"`
	Remote netip.Addr `json:"remote,omitzero"`
	// RemoteMAC is that of the pod at the other end, which gets a forwarding entry, as
	// Docker makes one. Optional: what has no entry goes to Remote too, after a second
	// look-up for each frame.
	RemoteMAC vnic.MAC `json:"remoteMAC,omitzero"`
	// MTU is that of the pod's interface in bytes. Default is the uplink's, less the 50
	// bytes of VXLAN in an overlay.
	MTU int `json:"mtu,omitempty"`
}

// overhead is how many bytes VXLAN over IPv4 adds: Ethernet, IP, UDP and its own header.
const overhead = 14 + 20 + 8 + 8

// Bounds of an MTU in bytes: what IPv4 takes (RFC 791), and what a veth does.
const (
	minMTU = 68
	maxMTU = 65535
)

// maxPorts bounds [Spec.Publish].
const maxPorts = 64

// Check returns the first thing that is wrong with s as a [vnic.ErrInvalid].
func (s Spec) Check() error {
	if !slices.Contains(Kinds(), s.Kind) {
		return invalid("kind %q is unknown: choose one of %q", s.Kind, Kinds())
	}
	if s.Kind != OverlayLinux && s.Pod == "" {
		return invalid("pod is missing: %s takes the pod's network namespace", s.Kind)
	}
	for _, name := range []string{s.podInterface(), s.Uplink} {
		if err := vnic.CheckInterface(name); err != nil {
			return fmt.Errorf("topology %s: %w", s.Kind, err)
		}
	}
	if !isHost(s.Address) {
		return invalid("address %q is no ipv4 address of a host with its prefix, such as 10.88.0.2/24", s.Address)
	}
	if s.MTU != 0 && (s.MTU < minMTU || s.MTU > maxMTU) {
		return invalid("mtu %d is not from %d to %d", s.MTU, minMTU, maxMTU)
	}
	if s.Kind.overlay() {
		return s.checkOverlay()
	}
	return s.checkRouted()
}

func (s Spec) checkRouted() error {
	switch {
	case !isHost(netip.PrefixFrom(s.Gateway, s.Address.Bits())) || !s.Address.Contains(s.Gateway):
		return invalid("gateway %q is no address of a host in %s", text(s.Gateway), s.Address.Masked())
	case s.Gateway == s.Address.Addr():
		return invalid("gateway %s is the pod's own address", s.Gateway)
	case s.Kind != NAT && len(s.Publish) > 0:
		return invalid("%s publishes no ports: only %s does", s.Kind, NAT)
	case s.Kind == NAT && (len(s.Publish) == 0 || len(s.Publish) > maxPorts):
		return invalid("%d ports to publish: %s takes 1 to %d", len(s.Publish), s.Kind, maxPorts)
	}
	ports := slices.Sorted(slices.Values(s.Publish))
	if slices.Contains(ports, 0) || len(slices.Compact(ports)) != len(s.Publish) {
		return invalid("ports %d: each is from 1 to 65535, and there once", s.Publish)
	}
	return nil
}

func (s Spec) checkOverlay() error {
	switch {
	case s.VNI == 0 || s.VNI >= 1<<24:
		return invalid("vni %d is not from 1 to %d", s.VNI, 1<<24-1)
	case !isUnicast(s.Local):
		return invalid("local end %q of the tunnel is no ipv4 address of a host", text(s.Local))
	case !isUnicast(s.Remote):
		return invalid("remote end %q of the tunnel is no ipv4 address of a host", text(s.Remote))
	case s.Local == s.Remote:
		return invalid("both ends of the tunnel are %s", s.Local)
	case s.RemoteMAC[0]&1 != 0:
		return invalid("remote mac %s is that of a group", s.RemoteMAC)
	case len(s.Publish) > 0:
		return invalid("%s publishes no ports: only %s does", s.Kind, NAT)
	}
	return nil
}

func (s Spec) podInterface() string {
	if s.Interface == "" {
		return "eth0"
	}
	return s.Interface
}

func isUnicast(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != vnic.LastAddr(netip.PrefixFrom(a, 0))
}

// isHost tells whether p is an IPv4 address with its prefix, neither the network's nor
// its broadcast address (which a /31 and a /32 don't have, RFC 3021).
func isHost(p netip.Prefix) bool {
	if !p.IsValid() || p.Bits() == 0 || !isUnicast(p.Addr()) {
		return false
	}
	return p.Bits() >= 31 || p.Addr() != p.Masked().Addr() && p.Addr() != vnic.LastAddr(p)
}

// text is an address as people read it, and nothing for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("topology: %s: %w", fmt.Sprintf(format, args...), vnic.ErrInvalid)
}
