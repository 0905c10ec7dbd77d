package guard

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Where a rule looks.
const (
	eth       = expr.PayloadBaseLLHeader
	network   = expr.PayloadBaseNetworkHeader
	transport = expr.PayloadBaseTransportHeader
)

// Offsets into headers.
const (
	ethDestination  = 0
	ethSource       = 6
	ethType         = 12
	arpOperation    = 6
	arpSenderMAC    = 8
	arpSenderIP     = 14
	arpTargetIP     = 24
	ipv4Source      = 12
	ipv4Destination = 16
	ipv6Length      = 4
	ipv6Next        = 6
	ipv6Source      = 8
	ipv6Destination = 24
	sourcePort      = 0
	icmpType        = 0
	ndTarget        = 8  // of solicitations and advertisements
	ndOption        = 24 // the first one after a target
	rsOption        = 8  // the first one of a router solicitation
)

// ICMPv6 types (RFC 4443, 4861, 2710, 3810).
const (
	mldQuery        = 130
	mldReport       = 131
	mldDone         = 132
	routerSolicit   = 133
	routerAdvert    = 134
	neighborSolicit = 135
	neighborAdvert  = 136
	redirect        = 137
	mldReport2      = 143
)

// ND options with their length of 8 bytes (RFC 4861, RFC 3971).
var (
	sourceMAC = []byte{1, 1}
	targetMAC = []byte{2, 1}
	nonce     = []byte{14, 1}
)

// The bridge table's chains.
var (
	prerouting = &nftables.Chain{
		Name: "prerouting", Table: bridgeTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(-300), // before everything that bridges usually have
	}
	delivery = &nftables.Chain{
		Name: "delivery", Table: bridgeTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityRef(300), // behind whatever changes a destination
	}
	chainPort  = bridgeChain("port")
	chainARP   = bridgeChain("arp")
	chainIPv4  = bridgeChain("ipv4")
	chainIPv6  = bridgeChain("ipv6")
	chainUp6   = bridgeChain("ipv6-payload")
	chainICMP6 = bridgeChain("icmpv6")
	chainND    = bridgeChain("nd")
	chainUnspc = bridgeChain("ipv6-unspecified")
	chainTo    = bridgeChain("to-port")
)

func bridgeChain(name string) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: bridgeTable}
}

// bridgeRules are the rules of each chain, those that are jumped to first.
func bridgeRules() []chainRules {
	return []chainRules{
		{prerouting, nil}, // made first, filled last
		{delivery, nil},
		{chainPort, nil},
		{chainARP, nil},
		{chainIPv4, nil},
		{chainIPv6, nil},
		{chainUp6, nil},
		{chainICMP6, nil},
		{chainND, nil},
		{chainUnspc, nil},
		{chainTo, nil},
		{chainARP, arpRules()},
		{chainIPv4, ipv4Rules()},
		{chainND, ndRules()},
		{chainUnspc, unspecifiedRules()},
		{chainICMP6, icmp6Rules()},
		{chainUp6, ipv6PayloadRules()},
		{chainIPv6, ipv6Rules()},
		{chainPort, portRules()},
		{chainTo, deliveryRules()},
		{prerouting, [][]expr.Any{rule(fromTap(vnic.Prefix), goTo(chainPort))}},
		{delivery, [][]expr.Any{rule(toTap(vnic.Prefix), goTo(chainTo))}},
	}
}

// deliveryRules drop what is for one station and not for an address of its own: who
// sends it remembers the MAC for a pod that had the vNIC before.
func deliveryRules() [][]expr.Any {
	return [][]expr.Any{
		rule(forGroup(), accept()),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_IP)...), notTheirs(ipv4Set, network, ipv4Destination), drop(ReasonDestination)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_IPV6)...), notTheirs(ipv6Set, network, ipv6Destination), drop(ReasonDestination)),
	}
}

// portRules sort frames by their type. Both the type and its place are read
// from the frame, so a VLAN tag is a type of its own, and not allowed.
func portRules() [][]expr.Any {
	return [][]expr.Any{
		rule(notLeased(macSet, eth, ethSource), drop(ReasonMAC)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_IP)...), goTo(chainIPv4)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_IPV6)...), goTo(chainIPv6)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_ARP)...), goTo(chainARP)),
		rule(drop(ReasonEtherType)),
	}
}

func arpRules() [][]expr.Any {
	ethernetIPv4 := []byte{0, 1, 0x08, 0, 6, 4} // hardware, protocol, lengths of their addresses
	return [][]expr.Any{
		rule(bytesAreNot(network, 0, ethernetIPv4...), drop(ReasonARP)),
		rule(notLeased(macSet, network, arpSenderMAC), drop(ReasonARP)),
		rule(leased(ipv4Set, network, arpSenderIP), accept()),
		// A probe (RFC 5227) has no sender address and asks for its own.
		rule(bytesAre(network, arpOperation, 0, 1), bytesAre(network, arpSenderIP, 0, 0, 0, 0),
			leased(ipv4Set, network, arpTargetIP), accept()),
		rule(drop(ReasonARP)),
	}
}

func ipv4Rules() [][]expr.Any {
	const igmpQuery, icmpRedirect, icmpRouterAdvert = 0x11, 5, 9
	return [][]expr.Any{
		rule(notLeased(ipv4Set, network, ipv4Source), drop(ReasonIPv4)),
		rule(protocol(unix.IPPROTO_UDP), bytesAre(transport, sourcePort, be16(67)...), drop(ReasonDHCP)),
		rule(protocol(unix.IPPROTO_ICMP), bytesAre(transport, icmpType, icmpRedirect), drop(ReasonRedirect)),
		rule(protocol(unix.IPPROTO_ICMP), bytesAre(transport, icmpType, icmpRouterAdvert), drop(ReasonRouter)),
		rule(protocol(unix.IPPROTO_IGMP), bytesAre(transport, icmpType, igmpQuery), drop(ReasonRouter)),
		rule(wellFormed(), accept()),
		rule(drop(ReasonIPv4)),
	}
}

func ipv6Rules() [][]expr.Any {
	return [][]expr.Any{
		rule(leased(ipv6Set, network, ipv6Source), goTo(chainUp6)),
		rule(bytesAre(network, ipv6Source, make([]byte, 16)...), goTo(chainUnspc)),
		rule(drop(ReasonIPv6)),
	}
}

func ipv6PayloadRules() [][]expr.Any {
	return [][]expr.Any{
		rule(protocol(unix.IPPROTO_ICMPV6), goTo(chainICMP6)),
		rule(protocol(unix.IPPROTO_UDP), bytesAre(transport, sourcePort, be16(547)...), drop(ReasonDHCP)),
		rule(wellFormed(), accept()),
		rule(drop(ReasonIPv6)),
	}
}

func icmp6Rules() [][]expr.Any {
	rules := [][]expr.Any{
		// Its first fragment, which has the type, decides: neighbour discovery
		// with a fragment header is dropped below, and ignored by RFC 6980.
		rule(laterFragment(), accept()),
		rule(bytesAre(transport, icmpType, routerAdvert), drop(ReasonRouter)),
		rule(bytesAre(transport, icmpType, mldQuery), drop(ReasonRouter)),
		rule(bytesAre(transport, icmpType, redirect), drop(ReasonRedirect)),
	}
	for _, t := range []byte{routerSolicit, neighborSolicit, neighborAdvert} {
		rules = append(rules, rule(bytesAre(transport, icmpType, t), goTo(chainND)))
	}
	return append(rules,
		rule(bytesAreNot(transport, icmpType, 0), accept()), // any other, if it can be read
		rule(drop(ReasonND)))
}

// ndRules end a message after the one option that they check: the length of
// the payload says that no other follows, which a receiver would read.
func ndRules() [][]expr.Any {
	without, with := be16(ndOption), be16(ndOption+8)
	return [][]expr.Any{
		rule(bytesAreNot(network, ipv6Next, unix.IPPROTO_ICMPV6), drop(ReasonND)),

		rule(bytesAre(transport, icmpType, routerSolicit), bytesAre(network, ipv6Length, be16(rsOption)...), accept()),
		rule(bytesAre(transport, icmpType, routerSolicit), bytesAre(network, ipv6Length, be16(rsOption+8)...),
			bytesAre(transport, rsOption, sourceMAC...), leased(macSet, transport, rsOption+2), accept()),

		rule(bytesAre(transport, icmpType, neighborSolicit), bytesAre(network, ipv6Length, without...), accept()),
		rule(bytesAre(transport, icmpType, neighborSolicit), bytesAre(network, ipv6Length, with...),
			bytesAre(transport, ndOption, sourceMAC...), leased(macSet, transport, ndOption+2), accept()),

		rule(notLeased(ipv6Set, transport, ndTarget), drop(ReasonND)),
		rule(bytesAre(transport, icmpType, neighborAdvert), bytesAre(network, ipv6Length, without...), accept()),
		rule(bytesAre(transport, icmpType, neighborAdvert), bytesAre(network, ipv6Length, with...),
			bytesAre(transport, ndOption, targetMAC...), leased(macSet, transport, ndOption+2), accept()),
		rule(drop(ReasonND)),
	}
}

// unspecifiedRules are for packets without a source address.
func unspecifiedRules() [][]expr.Any {
	rules := [][]expr.Any{
		rule(match{meta(expr.MetaKeyL4PROTO), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{unix.IPPROTO_ICMPV6}}}, drop(ReasonIPv6)),
	}
	for _, t := range []byte{mldReport, mldDone, mldReport2} {
		rules = append(rules, rule(protocol(unix.IPPROTO_ICMPV6), bytesAre(transport, icmpType, t), accept()))
	}
	// Duplicate address detection, with the nonce of RFC 7527 or without.
	dad := [][]match{
		{bytesAre(network, ipv6Length, be16(ndOption)...)},
		{bytesAre(network, ipv6Length, be16(ndOption+8)...), bytesAre(transport, ndOption, nonce...)},
	}
	for _, m := range dad {
		parts := append([]match{
			bytesAre(network, ipv6Next, unix.IPPROTO_ICMPV6), bytesAre(transport, icmpType, neighborSolicit),
			leased(ipv6Set, transport, ndTarget),
		}, m...)
		rules = append(rules, rule(append(parts, accept())...))
	}
	return append(rules, rule(drop(ReasonND)))
}
