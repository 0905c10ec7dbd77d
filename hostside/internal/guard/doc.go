// Package guard keeps the packet filter of a hypervisor: what may come in by a
// pod's tap and how much, which ports of the host lead to pods, and which networks
// hide behind the host's own address. It owns the
// nftables tables "brfuse" of the families bridge and inet, and is the only
// package that imports an nftables library.
//
// # Anti-spoofing
//
// The bridge table sees every frame that a tap, recognised by its name alone,
// hands to a bridge. Three sets say what is leased: tap and MAC, tap and IPv4
// address, tap and IPv6 address; the MAC's own link-local address is always
// among the last. A frame passes when
//
//   - its source MAC is the tap's, and it is untagged ARP, IPv4 or IPv6;
//   - of ARP: it is Ethernet/IPv4, its sender's MAC and IP are the tap's (or it
//     is a probe for an address of the tap's own);
//   - of IPv4 and IPv6: its source is the tap's, and it is none of a DHCP
//     server's answers, router advertisements, redirects or multicast queries;
//   - of neighbour discovery: it has no extension header, and at most the one
//     option that it needs, which names the tap's MAC; what it advertises, or
//     tests for duplicates, is an address of the tap's own;
//   - from the unspecified IPv6 address: it is such a test, or reports multicast
//     memberships.
//
// Everything else is dropped and counted under a [Reason]. A tap of which the
// sets know nothing can send nothing, so the filter is closed before a port is
// told of, while the daemon is down, and after a crash. A lookup costs the same
// with one port as with thousands, and a change of one port is one small batch.
//
// The bridge hook alone is not enough. A bridge passes frames for the group
// addresses 01:80:c2:00:00:0x on to the host beside that hook, and a tap that
// is in no bridge gives all to the host. So the inet table drops what reaches
// the host by a tap; bridged traffic comes in by the bridge and is not affected.
//
// # Delivery
//
// A vNIC of a pool keeps its MAC from one pod to the next, and neighbours remember it
// for the former one's addresses for a while. A second chain of the bridge table sees
// what leaves by a tap, and drops what is for one station and for no address that is
// leased to it.
//
// # Masquerading
//
// The inet table rewrites the source of what leaves the host from a network's
// pools, neither to the network itself nor into another network's bridge. It
// accepts nothing: an operator whose own forward chain drops by policy lets
// traffic from and to the bridges pass there.
//
// # Published ports
//
// Maps of the inet table translate what is addressed to a port of the host. What
// leaves by the bridge by which it came is masqueraded too: the answer would pass
// the host by. The chains are there while a port has any.
//
// # Limits
//
// A chain of the bridge table, behind the filter, has a rule for each
// limited tap, found by a map. A limit that doesn't change keeps its bucket.
//
// # Lifetime
//
// The tables exist while there is a network or a port. The kernel's copy is the
// state: [Open] reads what an earlier process left, and builds the tables anew
// around it. Replacement is atomic and keeps the counters.
package guard
