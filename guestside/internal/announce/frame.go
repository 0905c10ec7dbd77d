// Package announce tells the neighbours of a link which addresses it has, so
// that they forget where those addresses were before.
package announce

import (
	"encoding/binary"
	"net/netip"

	"github.com/brfuse/brfuse/vnic"
)

// Sizes in bytes and numbers of the protocols.
const (
	etherLen  = 14
	arpLen    = 28
	ipv6Len   = 40
	naLen     = 24
	optionLen = 8

	etherARP   = 0x0806
	etherIPv6  = 0x86dd
	protoICMP6 = 58
	typeNA     = 136
)

var (
	broadcast = vnic.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
	// RFC 2464, section 7: 33:33 and the low 32 bits of the group.
	allNodesMAC = vnic.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// Frame returns the Ethernet frame that announces that a is at mac: an ARP
// announcement or an unsolicited neighbour advertisement.
func Frame(mac vnic.MAC, a netip.Addr) []byte {
	if a.Is4() {
		return arp(mac, a)
	}
	return advertisement(mac, a)
}

func ether(b []byte, dst, src vnic.MAC, kind uint16) []byte {
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// arp returns an ARP announcement: a broadcast request whose sender and target
// address are both the address announced (RFC 5227, section 2.3; layout in RFC 826).
func arp(mac vnic.MAC, a netip.Addr) []byte {
	b := ether(make([]byte, 0, etherLen+arpLen), broadcast, mac, etherARP)
	b = append(b, 0, 1, 0x08, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	b = append(b, mac[:]...)
	b = append(b, a.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0) // target hardware address: ignored, zero
	return append(b, a.AsSlice()...)
}

// advertisement returns an unsolicited neighbour advertisement to all nodes
// (RFC 4861, sections 4.4 and 7.2.6): not solicited, overriding, from the
// address announced, with the target link-layer address option.
func advertisement(mac vnic.MAC, a netip.Addr) []byte {
	const override = 0x20
	src := a.As16()
	dst := allNodes.As16()
	b := ether(make([]byte, 0, etherLen+ipv6Len+naLen+optionLen), allNodesMAC, mac, etherIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, naLen+optionLen, protoICMP6, 255) // hop limit 255: section 7.1.2
	b = append(b, src[:]...)
	b = append(b, dst[:]...)
	na := len(b)
	b = append(b, typeNA, 0, 0, 0, override, 0, 0, 0)
	b = append(b, src[:]...)
	b = append(b, 2, 1) // option: target link-layer address, one unit of 8 bytes
	b = append(b, mac[:]...)
	binary.BigEndian.PutUint16(b[na+2:], checksum(src, dst, b[na:]))
	return b
}

// checksum is that of ICMPv6: over a pseudo-header and the message, whose
// checksum field is zero (RFC 4443, section 2.3; RFC 8200, section 8.1).
func checksum(src, dst [16]byte, msg []byte) uint16 {
	sum := uint32(len(msg)) + protoICMP6
	for _, part := range [][]byte{src[:], dst[:], msg} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
