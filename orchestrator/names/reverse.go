package names

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	reverse4 = "in-addr.arpa."
	reverse6 = "ip6.arpa."
)

// reverseName returns the name of a prefix of whole octets or nibbles, such as that of
// one address (RFC 1035, section 3.5, and RFC 3596, section 2.5).
func reverseName(p netip.Prefix) string {
	full, err := dns.ReverseAddr(p.Addr().String())
	if err != nil {
		return "" // not for an address
	}
	step := 8
	if p.Addr().Is6() {
		step = 4
	}
	for range (p.Addr().BitLen() - p.Bits()) / step {
		full = parent(full)
	}
	return full
}

// reversePrefix returns the longest prefix that a canonical name is the name of or is
// below of, and whether it is a reverse name at all.
func reversePrefix(name string) (netip.Prefix, bool) {
	if below(name, reverse4) {
		return readPrefix(strings.TrimSuffix(name, reverse4), 10, 8, make([]byte, 4))
	}
	if below(name, reverse6) {
		return readPrefix(strings.TrimSuffix(name, reverse6), 16, 4, make([]byte, 16))
	}
	return netip.Prefix{}, false
}

// readPrefix reads labels from the right, each of width bits in that base.
func readPrefix(labels string, base, width int, into []byte) (netip.Prefix, bool) {
	bits := 0
	parts := strings.Split(strings.TrimSuffix(labels, "."), ".")
	for _, label := range slices.Backward(parts) {
		v, err := strconv.ParseUint(label, base, width)
		if err != nil || bits == 8*len(into) {
			break
		}
		into[bits/8] |= byte(v) << (8 - width - bits%8)
		bits += width
	}
	a, _ := netip.AddrFromSlice(into)
	return netip.PrefixFrom(a, bits), true
}

// reverseApex returns the reverse zone of what is in a subnet: its prefix rounded up to
// whole octets or nibbles, but not to a single address.
func reverseApex(subnet netip.Prefix, a netip.Addr) string {
	step, most := 8, 24
	if a.Is6() {
		step, most = 4, 124
	}
	bits := min((subnet.Bits()+step-1)/step*step, most)
	return reverseName(netip.PrefixFrom(a, bits).Masked())
}
