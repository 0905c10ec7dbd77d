package guard

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
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

// ethernetIPv4 begins ARP: hardware, protocol, lengths of their addresses.
var ethernetIPv4 = []byte{0, 1, 0x08, 0, 6, 4}

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

	// For those that may have any address.
	chainOpen      = bridgeChain("open")
	chainOpenARP   = bridgeChain("open-arp")
	chainOpenIPv6  = bridgeChain("open-ipv6")
	chainOpenICMP6 = bridgeChain("open-icmpv6")
	chainOpenND    = bridgeChain("open-nd")
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
		{chainOpen, nil},
		{chainOpenARP, nil},
		{chainOpenIPv6, nil},
		{chainOpenICMP6, nil},
		{chainOpenND, nil},
		{chainARP, arpRules()},
		{chainIPv4, ipv4Rules()},
		{chainND, ndRules(ofItsOwn()...)},
		{chainUnspc, unspecifiedRules()},
		{chainICMP6, icmp6Rules(chainND)},
		{chainUp6, ipv6PayloadRules(chainICMP6)},
		{chainIPv6, ipv6Rules()},
		{chainOpenARP, openARPRules()},
		{chainOpenND, ndRules(withNonce()...)},
		{chainOpenICMP6, icmp6Rules(chainOpenND)},
		{chainOpenIPv6, ipv6PayloadRules(chainOpenICMP6)},
		{chainOpen, openRules()},
		{chainPort, portRules()},
		{chainTo, deliveryRules()},
		{prerouting, [][]expr.Any{
			rule(fromTap(), isIPv4(), leased(ipv4Set, network, ipv4Source), goTo(chainIPv4)),
			rule(fromTap(), isIPv6(), leased(ipv6Set, network, ipv6Source), goTo(chainUp6)),
			rule(fromTap(), goTo(chainPort)),
		}},
		{delivery, [][]expr.Any{
			rule(toTap(), isIPv4(), theirs(ipv4Set, network, ipv4Destination), accept()),
			rule(toTap(), isIPv6(), theirs(ipv6Set, network, ipv6Destination), accept()),
			rule(toTap(), goTo(chainTo)),
		}},
	}
}

// isIPv4 and isIPv6 match frames by their type. Both the type and its place are read
// from the frame, so a VLAN tag is a type of its own.
func isIPv4() match { return bytesAre(eth, ethType, be16(unix.ETH_P_IP)...) }
func isIPv6() match { return bytesAre(eth, ethType, be16(unix.ETH_P_IPV6)...) }

// deliveryRules are for what is not for the tap's MAC and an address of its own. They
// drop of it what is for one station: who sends it remembers the MAC for a pod that had
// the vNIC before.
func deliveryRules() [][]expr.Any {
	return [][]expr.Any{
		rule(forGroup(), accept()),
		rule(theirMAC(openSet), accept()),
		rule(isIPv4(), drop(ReasonDestination)),
		rule(isIPv6(), drop(ReasonDestination)),
	}
}

// portRules sort the frames that are not from an address of the tap's.
func portRules() [][]expr.Any {
	return [][]expr.Any{
		rule(notLeasedMAC(eth, ethSource), drop(ReasonMAC)),
		rule(ownMAC(openSet), goTo(chainOpen)),
		rule(bytesAre(eth, ethType, be16(unix.ETH_P_ARP)...), goTo(chainARP)),
		rule(isIPv6(), goTo(chainIPv6)),
		rule(isIPv4(), drop(ReasonIPv4)),
		rule(drop(ReasonEtherType)),
	}
}

func arpRules() [][]expr.Any {
	return [][]expr.Any{
		rule(bytesAreNot(network, 0, ethernetIPv4...), drop(ReasonARP)),
		rule(notLeasedMAC(network, arpSenderMAC), drop(ReasonARP)),
		rule(leased(ipv4Set, network, arpSenderIP), accept()),
		// A probe (RFC 5227) has no sender address and asks for its own.
		rule(bytesAre(network, arpOperation, 0, 1), bytesAre(network, arpSenderIP, 0, 0, 0, 0),
			leased(ipv4Set, network, arpTargetIP), accept()),
		rule(drop(ReasonARP)),
	}
}

// ipv4Rules are for packets from an address of the tap's. What most of them are comes
// first, since each rule costs each packet that comes to it. A fragment has no port, and
// is looked at further down.
func ipv4Rules() [][]expr.Any {
	const igmpQuery, icmpRedirect, icmpRouterAdvert = 0x11, 5, 9
	return [][]expr.Any{
		rule(protocol(unix.IPPROTO_TCP), accept()),
		rule(protocol(unix.IPPROTO_UDP), bytesAreNot(transport, sourcePort, be16(67)...), accept()),
		rule(protocol(unix.IPPROTO_UDP), bytesAre(transport, sourcePort, be16(67)...), drop(ReasonDHCP)),
		rule(protocol(unix.IPPROTO_ICMP), bytesAre(transport, icmpType, icmpRedirect), drop(ReasonRedirect)),
		rule(protocol(unix.IPPROTO_ICMP), bytesAre(transport, icmpType, icmpRouterAdvert), drop(ReasonRouter)),
		rule(protocol(unix.IPPROTO_IGMP), bytesAre(transport, icmpType, igmpQuery), drop(ReasonRouter)),
		rule(wellFormed(), accept()),
		rule(drop(ReasonIPv4)),
	}
}

// ipv6Rules are for packets that are not from an address of the tap's.
func ipv6Rules() [][]expr.Any {
	return [][]expr.Any{
		rule(bytesAre(network, ipv6Source, make([]byte, 16)...), goTo(chainUnspc)),
		rule(drop(ReasonIPv6)),
	}
}

// ipv6PayloadRules are for packets whose source is all right; icmp is the chain for
// ICMPv6.
func ipv6PayloadRules(icmp *nftables.Chain) [][]expr.Any {
	return [][]expr.Any{
		rule(protocol(unix.IPPROTO_ICMPV6), goTo(icmp)),
		rule(protocol(unix.IPPROTO_UDP), bytesAre(transport, sourcePort, be16(547)...), drop(ReasonDHCP)),
		rule(wellFormed(), accept()),
		rule(drop(ReasonIPv6)),
	}
}

func icmp6Rules(nd *nftables.Chain) [][]expr.Any {
	rules := [][]expr.Any{
		// Its first fragment, which has the type, decides: neighbour discovery
		// with a fragment header is dropped below, and ignored by RFC 6980.
		rule(laterFragment(), accept()),
		rule(bytesAre(transport, icmpType, routerAdvert), drop(ReasonRouter)),
		rule(bytesAre(transport, icmpType, mldQuery), drop(ReasonRouter)),
		rule(bytesAre(transport, icmpType, redirect), drop(ReasonRedirect)),
	}
	for _, t := range []byte{routerSolicit, neighborSolicit, neighborAdvert} {
		rules = append(rules, rule(bytesAre(transport, icmpType, t), goTo(nd)))
	}
	return append(rules,
		rule(bytesAreNot(transport, icmpType, 0), accept()), // any other, if it can be read
		rule(drop(ReasonND)))
}

// ndRules end a message after the one option that they check: the length of
// the payload says that no other follows, which a receiver would read. Those of extra
// come before the ones for advertisements.
func ndRules(extra ...[]expr.Any) [][]expr.Any {
	without, with := be16(ndOption), be16(ndOption+8)
	rules := [][]expr.Any{
		rule(bytesAreNot(network, ipv6Next, unix.IPPROTO_ICMPV6), drop(ReasonND)),

		rule(bytesAre(transport, icmpType, routerSolicit), bytesAre(network, ipv6Length, be16(rsOption)...), accept()),
		rule(bytesAre(transport, icmpType, routerSolicit), bytesAre(network, ipv6Length, be16(rsOption+8)...),
			bytesAre(transport, rsOption, sourceMAC...), leasedMAC(transport, rsOption+2), accept()),

		rule(bytesAre(transport, icmpType, neighborSolicit), bytesAre(network, ipv6Length, without...), accept()),
		rule(bytesAre(transport, icmpType, neighborSolicit), bytesAre(network, ipv6Length, with...),
			bytesAre(transport, ndOption, sourceMAC...), leasedMAC(transport, ndOption+2), accept()),
	}
	return append(append(rules, extra...),
		rule(bytesAre(transport, icmpType, neighborAdvert), bytesAre(network, ipv6Length, without...), accept()),
		rule(bytesAre(transport, icmpType, neighborAdvert), bytesAre(network, ipv6Length, with...),
			bytesAre(transport, ndOption, targetMAC...), leasedMAC(transport, ndOption+2), accept()),
		rule(drop(ReasonND)))
}

// ofItsOwn drops what advertises an address that is not the tap's.
func ofItsOwn() [][]expr.Any {
	return [][]expr.Any{rule(notLeased(ipv6Set, transport, ndTarget), drop(ReasonND))}
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
