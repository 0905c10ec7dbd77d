// Package frametest puts Ethernet frames together by hand, so that tests can
// have each of their bytes lie. Addresses are texts, and wrong ones panic.
package frametest

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Broadcast is the address of all stations.
var Broadcast = vnic.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// BE16 is a number of 16 bits in network order.
func BE16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

// Ether is a frame; tags of VLANs come with the payload.
func Ether(src, dst vnic.MAC, etherType int, payload ...[]byte) []byte {
	return slices.Concat(append([][]byte{dst[:], src[:], BE16(etherType)}, payload...)...)
}

// ARP is a message about IPv4 over Ethernet (RFC 826).
func ARP(op int, sender vnic.MAC, senderIP, targetIP string) []byte {
	s, t := netip.MustParseAddr(senderIP), netip.MustParseAddr(targetIP)
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4}, BE16(op), sender[:], s.AsSlice(), make([]byte, 6), t.AsSlice())
}

// IP4 is a packet without options (RFC 791).
func IP4(src, dst string, proto byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	h := slices.Concat([]byte{0x45, 0}, BE16(20+len(payload)), []byte{0, 1, 0, 0, 64, proto, 0, 0}, s.AsSlice(), d.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

// IP6 is a packet with hop limit 255 (RFC 8200).
func IP6(src, dst string, next byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	return slices.Concat([]byte{0x60, 0, 0, 0}, BE16(len(payload)), []byte{next, 255}, s.AsSlice(), d.AsSlice(), payload)
}

// UDP is a datagram with some data. It leaves the checksum out, which no bridge looks at.
func UDP(from, to int) []byte {
	return slices.Concat(BE16(from), BE16(to), BE16(8+4), []byte{0, 0}, []byte("data"))
}

// TCP is a SYN.
func TCP(from, to int) []byte {
	return slices.Concat(BE16(from), BE16(to), make([]byte, 8), []byte{0x50, 2}, make([]byte, 6))
}

// ICMP is a message of ICMP, ICMPv6 or IGMP: type, code, checksum, body.
func ICMP(kind byte, body ...[]byte) []byte {
	return slices.Concat(append([][]byte{{kind, 0, 0, 0}}, body...)...)
}

// ND is a neighbour solicitation or advertisement.
func ND(kind byte, target string, options ...[]byte) []byte {
	body := [][]byte{make([]byte, 4), netip.MustParseAddr(target).AsSlice()}
	return ICMP(kind, append(body, options...)...)
}

// Option is a link-layer address option of ND.
func Option(kind byte, m vnic.MAC) []byte { return append([]byte{kind, 1}, m[:]...) }

// HopByHop puts an extension header of eight bytes before the next one: it is
// what multicast listener messages have.
func HopByHop(icmp []byte) []byte {
	return append([]byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}, icmp...) // router alert, padding
}

// DestinationOptions puts an extension header of eight bytes before the next header.
func DestinationOptions(next byte, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// Fragment puts a fragment header before a part of a packet, at an offset in bytes.
func Fragment(next byte, offset int, more byte, payload []byte) []byte {
	return slices.Concat([]byte{next, 0}, BE16(offset&^7|int(more)), []byte{0, 0, 0, 1}, payload)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
