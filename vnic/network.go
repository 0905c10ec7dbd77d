package vnic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// Sizes of a network's frames in bytes.
const (
	DefaultMTU = 1500
	MinMTU     = 1280 // RFC 8200, section 5
	MaxMTU     = 65521
)

// maxIfname is the longest interface name: IFNAMSIZ less its final zero.
const maxIfname = 15

// NetworkKind is what carries a network's frames.
type NetworkKind string

// Kinds of networks.
const (
	// KindBridge is a Linux bridge, a segment of its own on each hypervisor.
	KindBridge NetworkKind = "bridge"
	// KindOverlay is one segment over all hypervisors that share a store: the bridges
	// are joined by VXLAN (RFC 7348).
	KindOverlay NetworkKind = "overlay"
	// KindVLAN is a bridge whose one port to outside is a tagged link of an uplink
	// (IEEE 802.1Q). The gateways are routers out there: brfuse gives the bridge no
	// address, has the host forward nothing for it, and masquerades nothing.
	KindVLAN NetworkKind = "vlan"
	// KindMacvtap has no bridge: each vNIC is a macvtap of an uplink. The gateways are
	// routers out there. The host itself doesn't reach the pods, nor they it: no port of
	// it can be published. Bandwidths can't be limited, and a VM with such a vNIC can't
	// be moved to another hypervisor process.
	KindMacvtap NetworkKind = "macvtap"
)

// MaxVNI is the largest identifier of an overlay's segment (RFC 7348, section 5).
const MaxVNI = 1<<24 - 1

// VXLANPort is the UDP port that hypervisors exchange the frames of overlays by (RFC
// 7348, section 8).
const VXLANPort = 4789

// Network is a layer-2 segment that vNICs are ports of, and the address pools that
// their leases come from.
type Network struct {
	// Name identifies the network: up to 63 of a-z, 0-9, '-', '_' and '.'. Required.
	Name string `json:"name"`
	// Kind is what carries its frames. Default: [KindBridge].
	Kind NetworkKind `json:"kind,omitempty"`
	// VNI identifies an overlay's segment on the wire. Default: a free one.
	VNI uint32 `json:"vni,omitempty"`
	// Uplink is the link of the hypervisor that a VLAN or macvtap network uses.
	Uplink string `json:"uplink,omitempty"`
	// VLAN is the tag, 1-4094. Required for [KindVLAN].
	VLAN int `json:"vlan,omitempty"`
	// Unaddressed says that vNICs get no addresses: they take them by DHCP, or route.
	// The network then has no subnets, and of a pod's frames only the MAC is checked, in
	// ARP and neighbour discovery too. Answers of DHCP servers, router advertisements,
	// redirects and multicast queries are dropped all the same.
	Unaddressed bool `json:"unaddressed,omitempty"`
	// Bridge is the Linux bridge. Default: one that brfuse makes, named by [BridgeName].
	Bridge string `json:"bridge"`
	// External says that Bridge was there before: brfuse uses it, and neither
	// makes, configures nor removes it.
	External bool `json:"external,omitempty"`
	// Subnets are the address pools: at most one IPv4 and one IPv6 prefix.
	Subnets []netip.Prefix `json:"subnets"`
	// Gateways has the gateway of each subnet, in the same order. Default: the
	// first host address of each.
	Gateways []netip.Addr `json:"gateways"`
	// Masquerade hides the pools behind the host's own address in traffic that
	// leaves the host.
	Masquerade bool `json:"masquerade"`
	// MTU in bytes. Default: [DefaultMTU]; of an overlay, what the underlay leaves.
	MTU int `json:"mtu"`
}

// BridgeName returns the name of the bridge that brfuse makes for a network:
// "bf-" and the network's name, or a part of its hash when that is too long.
func BridgeName(network string) string {
	const prefix = "bf-"
	if len(prefix)+len(network) <= maxIfname {
		return prefix + network
	}
	sum := sha256.Sum256([]byte(network))
	return prefix + hex.EncodeToString(sum[:6])
}

// Complete returns n with its defaults filled in, or the first thing that is
// wrong with it as an [ErrInvalid].
func (n Network) Complete() (Network, error) {
	if err := checkName("network", n.Name); err != nil {
		return n, err
	}
	n, err := n.completeKind()
	if err != nil {
		return n, fmt.Errorf("network %s: %w", n.Name, err)
	}
	if n.MTU == 0 && n.Kind != KindOverlay {
		n.MTU = DefaultMTU
	}
	if n.MTU != 0 && (n.MTU < MinMTU || n.MTU > MaxMTU) {
		return n, fmt.Errorf("network %s: mtu %d is not in %d-%d: %w", n.Name, n.MTU, MinMTU, MaxMTU, ErrInvalid)
	}
	return n.completeSubnets()
}

// completeSubnets is Complete for the pools and gateways.
func (n Network) completeSubnets() (Network, error) {
	switch {
	case n.Unaddressed && (len(n.Subnets) != 0 || len(n.Gateways) != 0 || n.Masquerade):
		return n, fmt.Errorf("network %s: one without addresses has no subnets, gateways or masquerading: %w", n.Name, ErrInvalid)
	case n.Unaddressed:
		return n, nil
	case len(n.Subnets) == 0:
		return n, fmt.Errorf("network %s: no subnet: %w", n.Name, ErrInvalid)
	}
	if len(n.Gateways) != 0 && len(n.Gateways) != len(n.Subnets) {
		return n, fmt.Errorf("network %s: %d gateways for %d subnets: %w", n.Name, len(n.Gateways), len(n.Subnets), ErrInvalid)
	}
	gateways := make([]netip.Addr, len(n.Subnets))
	for i, p := range n.Subnets {
		if err := checkSubnet(p); err != nil {
			return n, fmt.Errorf("network %s: %w", n.Name, err)
		}
		for _, q := range n.Subnets[:i] {
			if p.Addr().Is4() == q.Addr().Is4() {
				return n, fmt.Errorf("network %s: two subnets of one family, %s and %s: %w", n.Name, q, p, ErrInvalid)
			}
		}
		gateways[i] = p.Addr().Next()
		if len(n.Gateways) != 0 && n.Gateways[i].IsValid() {
			gateways[i] = n.Gateways[i]
		}
		if !p.Contains(gateways[i]) || gateways[i] == p.Addr() || gateways[i] == LastAddr(p) {
			return n, fmt.Errorf("network %s: gateway %s is no host address of %s: %w", n.Name, gateways[i], p, ErrInvalid)
		}
	}
	n.Gateways = gateways
	return n, nil
}

// WithKind returns n with the default kind filled in: records of before there were
// kinds have none.
func (n Network) WithKind() Network {
	if n.Kind == "" {
		n.Kind = KindBridge
	}
	return n
}

// completeKind is Complete for the kind and what belongs to it.
func (n Network) completeKind() (Network, error) {
	n = n.WithKind()
	tagged, uplinked := n.Kind == KindVLAN, n.Kind == KindVLAN || n.Kind == KindMacvtap
	switch {
	case n.Kind != KindBridge && n.Kind != KindOverlay && !uplinked:
		return n, fmt.Errorf("kind %q is not bridge, overlay, vlan or macvtap: %w", n.Kind, ErrInvalid)
	case n.External && n.Kind != KindBridge:
		return n, fmt.Errorf("an existing bridge can't be of kind %s: %w", n.Kind, ErrInvalid)
	case n.VNI != 0 && n.Kind != KindOverlay:
		return n, fmt.Errorf("vni %d: only an overlay has one: %w", n.VNI, ErrInvalid)
	case n.VNI > MaxVNI:
		return n, fmt.Errorf("vni %d is not in 1-%d: %w", n.VNI, MaxVNI, ErrInvalid)
	case tagged && (n.VLAN < 1 || n.VLAN > 4094):
		return n, fmt.Errorf("vlan %d is not in 1-4094: %w", n.VLAN, ErrInvalid)
	case !tagged && n.VLAN != 0:
		return n, fmt.Errorf("vlan %d: only a network of kind vlan has one: %w", n.VLAN, ErrInvalid)
	case !uplinked && n.Uplink != "":
		return n, fmt.Errorf("uplink %s: only networks of the kinds vlan and macvtap have one: %w", n.Uplink, ErrInvalid)
	}
	if uplinked && n.Uplink == "" {
		return n, fmt.Errorf("a network of kind %s needs the name of its uplink: %w", n.Kind, ErrInvalid)
	}
	if uplinked {
		if err := CheckInterface(n.Uplink); err != nil {
			return n, fmt.Errorf("uplink: %w", err)
		}
	}
	return n.completeBridge()
}

// completeBridge is Complete for the bridge's name.
func (n Network) completeBridge() (Network, error) {
	switch {
	case n.Kind == KindMacvtap && n.Bridge != "":
		return n, fmt.Errorf("bridge %s: a network of kind macvtap has none: %w", n.Bridge, ErrInvalid)
	case n.Kind == KindMacvtap && n.Masquerade:
		return n, fmt.Errorf("a network of kind macvtap passes the host by, which can't masquerade it: %w", ErrInvalid)
	case n.Kind == KindVLAN && n.Masquerade:
		return n, fmt.Errorf("the router of a network of kind vlan is not this host, which can't masquerade it: %w", ErrInvalid)
	case n.Kind == KindMacvtap:
		return n, nil
	case n.Bridge == "" && n.External:
		return n, fmt.Errorf("an existing bridge needs its name: %w", ErrInvalid)
	case n.Bridge == "":
		n.Bridge = BridgeName(n.Name)
	}
	if err := CheckInterface(n.Bridge); err != nil {
		return n, fmt.Errorf("bridge: %w", err)
	}
	return n, nil
}

// Subnet returns the network's pool that contains a, and whether there is one.
func (n Network) Subnet(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range n.Subnets {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// LastAddr returns the last address of a prefix: for IPv4 its broadcast address.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func checkSubnet(p netip.Prefix) error {
	switch a := p.Addr(); {
	case !p.IsValid():
		return fmt.Errorf("subnet is not a prefix such as 10.1.0.0/24: %w", ErrInvalid)
	case p != p.Masked():
		return fmt.Errorf("subnet %s has host bits set, meant %s?: %w", p, p.Masked(), ErrInvalid)
	case a.Is4In6():
		return fmt.Errorf("subnet %s is an IPv4-mapped prefix: %w", p, ErrInvalid)
	case a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast():
		return fmt.Errorf("subnet %s is no unicast range: %w", p, ErrInvalid)
	case a.Is4() && (p.Bits() < 8 || p.Bits() > 30):
		return fmt.Errorf("subnet %s: prefix length is not in 8-30: %w", p, ErrInvalid)
	case a.Is6() && (p.Bits() < 16 || p.Bits() > 126):
		return fmt.Errorf("subnet %s: prefix length is not in 16-126: %w", p, ErrInvalid)
	}
	return nil
}
