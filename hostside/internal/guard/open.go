package guard

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// openRules sort the frames of a tap that may have any address. Their MAC is the tap's.
func openRules() [][]expr.Any {
	return [][]expr.Any{
		rule(isIPv4(), goTo(chainIPv4)),
		rule(isIPv6(), goTo(chainOpenIPv6)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_ARP)...), goTo(chainOpenARP)),
		rule(drop(ReasonEtherType)),
	}
}

// openARPRules let through what names the tap's MAC, for whatever address.
func openARPRules() [][]expr.Any {
	return [][]expr.Any{
		rule(bytesAreNot(network, 0, ethernetIPv4...), drop(ReasonARP)),
		rule(leasedMAC(network, arpSenderMAC), accept()),
		rule(drop(ReasonARP)),
	}
}

// withNonce lets duplicate address detection with the nonce of RFC 7527 through, for
// whatever address. That without is let through as any solicitation is.
func withNonce() [][]expr.Any {
	return [][]expr.Any{rule(
		bytesAre(network, ipv6Source, make([]byte, 16)...), bytesAre(transport, icmpType, neighborSolicit),
		bytesAre(network, ipv6Length, be16(ndOption+8)...), bytesAre(transport, ndOption, nonce...), accept(),
	)}
}

// ownMAC matches when the tap that a frame came in by and its source MAC are in set.
func ownMAC(set *nftables.Set) match { return macInSet(set, expr.MetaKeyIIFNAME, ethSource) }

// theirMAC matches when the tap that a frame goes out by and its destination MAC are in
// set.
func theirMAC(set *nftables.Set) match { return macInSet(set, expr.MetaKeyOIFNAME, ethDestination) }

func macInSet(set *nftables.Set, tap expr.MetaKey, offset uint32) match {
	return match{
		meta(tap), load(eth, offset, macBytes, reg2),
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
	}
}
