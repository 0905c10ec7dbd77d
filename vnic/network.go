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

// Network is a layer-2 segment on a hypervisor: a Linux bridge that vNICs are
// ports of, and the address pools that their leases come from.
type Network struct {
	// Name identifies the network: up to 63 of a-z, 0-9, '-', '_' and '.'. Required.
	Name string `json:"name"`
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
	// MTU in bytes. Default: [DefaultMTU].
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
	if n.Bridge == "" {
		if n.External {
			return n, fmt.Errorf("network %s: an existing bridge needs its name: %w", n.Name, ErrInvalid)
		}
		n.Bridge = BridgeName(n.Name)
	}
	if err := CheckInterface(n.Bridge); err != nil {
		return n, fmt.Errorf("network %s: bridge: %w", n.Name, err)
	}
	if n.MTU == 0 {
		n.MTU = DefaultMTU
	}
	if n.MTU < MinMTU || n.MTU > MaxMTU {
		return n, fmt.Errorf("network %s: mtu %d is not in %d-%d: %w", n.Name, n.MTU, MinMTU, MaxMTU, ErrInvalid)
	}
	if len(n.Subnets) == 0 {
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
