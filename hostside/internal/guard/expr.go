package guard

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// The registers that rules use. Each holds 16 bytes: an interface's name fits
// the first, and a MAC the first two words of the second; regIP is its third word, from
// which on an IP address is. So they lie as a set's key wants them.
const (
	reg   = unix.NFT_REG_1
	reg2  = unix.NFT_REG_2
	regIP = unix.NFT_REG32_06

	macBytes = 6
	beforeIP = unix.IFNAMSIZ + macBytes + 2 // in a key: each part fills whole words
)

// match is a part of a rule: the expressions of one condition or action.
type match []expr.Any

// rule joins parts to one rule's expressions.
func rule(parts ...match) []expr.Any { return slices.Concat(parts...) }

func load(base expr.PayloadBase, offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: reg} }

// bytesAre matches when the bytes at offset of a header are exactly want.
func bytesAre(base expr.PayloadBase, offset uint32, want ...byte) match {
	return match{load(base, offset, uint32(len(want)), reg), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: want}}
}

// bytesAreNot matches when the bytes are there and are not want.
func bytesAreNot(base expr.PayloadBase, offset uint32, want ...byte) match {
	return match{load(base, offset, uint32(len(want)), reg), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: want}}
}

// leased matches when the tap that a frame came in by, the frame's source MAC and the
// IP address at offset are in set.
func leased(set *nftables.Set, base expr.PayloadBase, offset uint32) match {
	return inSet(set, expr.MetaKeyIIFNAME, ethSource, base, offset, false)
}

// notLeased matches when the address is there, and not in set with the tap that the
// frame came in by and its source MAC.
func notLeased(set *nftables.Set, base expr.PayloadBase, offset uint32) match {
	return inSet(set, expr.MetaKeyIIFNAME, ethSource, base, offset, true)
}

// theirs is leased for the tap that the frame goes out by and its destination MAC.
func theirs(set *nftables.Set, base expr.PayloadBase, offset uint32) match {
	return inSet(set, expr.MetaKeyOIFNAME, ethDestination, base, offset, false)
}

func inSet(set *nftables.Set, tap expr.MetaKey, mac uint32, base expr.PayloadBase, offset uint32, invert bool) match {
	return match{
		meta(tap), load(eth, mac, macBytes, reg2), load(base, offset, set.KeyType.Bytes-beforeIP, regIP),
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: invert},
	}
}

// leasedMAC matches when the MAC at offset is that of the tap that a frame came in by.
func leasedMAC(base expr.PayloadBase, offset uint32) match { return inMACs(base, offset, false) }

// notLeasedMAC matches when the MAC is there, and another one.
func notLeasedMAC(base expr.PayloadBase, offset uint32) match { return inMACs(base, offset, true) }

func inMACs(base expr.PayloadBase, offset uint32, invert bool) match {
	return match{
		meta(expr.MetaKeyIIFNAME), load(base, offset, macBytes, reg2),
		&expr.Lookup{SourceRegister: reg, SetName: macSet.Name, SetID: macSet.ID, Invert: invert},
	}
}

// fromTap matches what comes in by a tap of brfuse's, leased or not.
func fromTap() match { return byTap(expr.MetaKeyIIFNAME) }

// toTap matches what goes out by a tap of brfuse's.
func toTap() match { return byTap(expr.MetaKeyOIFNAME) }

func byTap(tap expr.MetaKey) match {
	return match{meta(tap), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(vnic.Prefix)}}
}

// forGroup matches frames for more than one station.
func forGroup() match {
	return match{
		load(eth, ethDestination, 1, reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{1}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{1}},
	}
}

// protocol matches the transport protocol behind all headers.
func protocol(p byte) match {
	return match{meta(expr.MetaKeyL4PROTO), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{p}}}
}

// wellFormed matches a packet whose headers the kernel could follow up to the
// transport protocol, whichever: 255 is reserved and none.
func wellFormed() match {
	return match{meta(expr.MetaKeyL4PROTO), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{unix.IPPROTO_RAW}}}
}

// laterFragment matches IPv6 fragments but for the first.
func laterFragment() match {
	return match{
		&expr.Exthdr{DestRegister: reg, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{0, 0}},
	}
}

// drop counts a packet under a reason and drops it.
func drop(r Reason) match {
	return match{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: string(r)}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func accept() match { return match{&expr.Verdict{Kind: expr.VerdictAccept}} }

func goTo(c *nftables.Chain) match {
	return match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}

// family matches IPv4 or IPv6 in the family inet.
func family(nfproto byte) match {
	return match{meta(expr.MetaKeyNFPROTO), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{nfproto}}}
}

// nativeUint32 is a number as the kernel has it in a register.
func nativeUint32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
