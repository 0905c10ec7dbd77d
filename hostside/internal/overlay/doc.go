// Package overlay programs the VXLAN networks (RFC 7348) of one hypervisor. It is told
// which pods are on other hypervisors, and makes the kernel's tables say just that.
//
// A network has one VXLAN link, which is a port of the network's bridge. Its name,
// "bfx-" and the VNI, tells the next daemon whose it is. For each remote pod there are
//
//   - an entry of the VXLAN link: which hypervisor its MAC is at;
//   - an entry of the bridge: its MAC is at the VXLAN port, whoever else sends in its name;
//   - permanent neighbours of the bridge: the MAC of each of its addresses.
//
// From the last, the bridge itself answers ARP requests and neighbour solicitations of
// local pods for remote ones, and the host finds remote pods (net/bridge/br_arp_nd_proxy.c).
// Nothing is learned and nothing is flooded: what is for no declared pod stays here, be
// it for an unknown station, a group or all. The VXLAN link has no default destination,
// which catches also what the bridge itself sends to groups. Only requests that are sent
// to one station, as pods do to confirm what they know, go to that station; kernels before
// 6.15 answer them here as well.
//
// # Local and remote
//
// A station at another port of the bridge keeps its place: a remote pod with the same MAC
// is [vnic.ErrAddressTaken], stays wanted, and takes effect once that port is gone. So a
// pod that leaves may be declared remote before or after its tap is removed. A pod that
// comes has to be removed from the table before its tap joins.
//
// # Drift
//
// A monitor hears of each entry that somebody else changes, and of changes to the links.
// What contradicts the table is looked up and repaired at once, and counted. Where the
// kernel had to drop news, all is compared. All permanent neighbours of the bridge and
// all entries that lead to the VXLAN link are the table's alone, once there is one:
// [Overlay.Replace] removes others.
package overlay
