package vnic

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
)

// MAC is a 48-bit Ethernet address. It is comparable, and in text and JSON it
// reads as "02:00:5e:00:53:01".
type MAC [6]byte

// NewMAC returns a random locally administered unicast address (IEEE 802,
// clause 8.2: the second bit of the first octet set, the first one clear). The
// caller checks it against the addresses that it knows.
func NewMAC() MAC {
	var m MAC
	rand.Read(m[:])
	m[0] = m[0]&^0x01 | 0x02
	return m
}

// ParseMAC reads an Ethernet address in one of the forms of [net.ParseMAC]. A
// group address and the zero address are refused with [ErrInvalid].
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("mac %q is not an Ethernet address such as 02:00:5e:00:53:01: %w", s, ErrInvalid)
	}
	m := MAC(hw)
	if m.IsZero() || m[0]&0x01 != 0 {
		return MAC{}, fmt.Errorf("mac %s is no unicast address: %w", m, ErrInvalid)
	}
	return m, nil
}

// IsZero reports whether m is the zero address, which stands for "none".
func (m MAC) IsZero() bool { return m == MAC{} }

// HardwareAddr returns m as a slice of its own.
func (m MAC) HardwareAddr() net.HardwareAddr { return append(net.HardwareAddr(nil), m[:]...) }

// String returns the usual form with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// LinkLocal returns the IPv6 link-local address that derives from m by
// modified EUI-64 (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: m[0] ^ 0x02, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// MarshalText implements [encoding.TextMarshaler]. The zero address is empty.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return []byte{}, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text is the zero
// address.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}
