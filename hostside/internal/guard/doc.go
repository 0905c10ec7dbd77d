// Package guard keeps the packet filter of a hypervisor: what may come in by a
// pod's tap and how much, which ports of the host lead to which pods, and which networks
// hide behind the host's own address. It owns the
// nftables tables "brfuse" of the families bridge and inet, and is the only
// package that imports an nftables library.
//
// # Anti-spoofing
//
// The bridge table sees every frame that a tap, recognised by its name alone,
// hands to a bridge. Three sets say what is leased: tap and MAC, and these
// with an IPv4 or an IPv6 address; the MAC's own link-local address is always
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
// with one port as with thousands, and a change of one port is one small batch. Packets
// from a leased address are looked up once, before all else: what remains for them is
// the list of what even they may not send.
//
// The bridge hook alone is not enough. A bridge passes frames for the group
// addresses 01:80:c2:00:00:0x on to the host beside that hook, and a tap that
// is in no bridge gives all to the host. So the inet table drops what reaches
// the host by a tap; bridged traffic comes in by the bridge and is not affected.
//
// A port of a network without addresses is in a set of its own: what it sends needs
// nothing but its MAC, which ARP and neighbour discovery must tell, too. It is no DHCP
// server or router either, and is sent what is for its MAC.
//
// # Macvtaps
//
// A macvtap is in no bridge. What its guest sends is what the device sends to the
// uplink, and what it receives comes in by the device: the same rules are there in a table of
// the family netdev, one for each macvtap, named as it is. It is made before the device is
// set up, and deleted with the port; a device that is deleted takes its chains along.
//
// # Delivery
//
// A vNIC of a pool keeps its MAC from one pod to the next, and neighbours remember it
// for the former one's addresses for a while. A second chain of the bridge table sees
// what leaves by a tap, and drops of IPv4 and IPv6 what is for one station, but not for
// the tap's MAC and an address that is leased to it.
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
// # Services
//
// A port of the host may lead to many pods, on this host and on others. A map leads
// from protocol and port to a chain that draws a number, of which there is one for each
// count of targets, and a second map from these three to address and port of a pod: a
// target more or less is two or three elements. The first packet of a connection
// decides. What goes to a pod on another host gets an address of this host's in the
// pod's network as its source, so that the answers come back here; what stays keeps its own.
// Published ports come first. The frames of other hosts come and go by a port of the
// bridge that is no tap, and pass the bridge table.
//
// # Limits
//
// A chain of the bridge table, behind the filter, has a rule for each
// limited tap, found by a map. A limit that doesn't change keeps its bucket.
//
// # Lifetime
//
// The tables exist while there is a network, a port or a service. The kernel's copy is the
// state: [Open] reads what an earlier process left, and builds the tables anew
// around it. Replacement is atomic and keeps the counters.
package guard
