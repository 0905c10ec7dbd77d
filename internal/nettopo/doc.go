// Package nettopo builds and removes the nested networks of containers in a VM that
// brfuse is compared with: a routed veth pair, a bridge, Docker's bridge with NAT, and
// two shapes of a VXLAN overlay. It works in the network namespace of the calling
// thread, which is a VM's first one.
//
// A namespace has at most one topology of this package. [Up] refuses to build another
// one and undoes what it made when it fails. [Down] removes whatever one there is, also
// what a crash left of it, and may be repeated.
//
// # What is touched
//
// All that is made has a name of its own: links "bfb-…" in the link group [Group], one
// nftables table "brfuse-bench" of family ip, one namespace "bfb-…" in /run/netns, and
// the interface in the pod. Links of such a name that are not in the group are somebody
// else's: Up refuses then, and Down leaves them alone.
//
// One setting that is there already is changed: the uplink's own IPv4 forwarding
// (net.ipv4.conf.UPLINK.forwarding), where it is off. The alias of the link that has
// the gateway, "bfb-veth" or "bfb-br", remembers that, and Down turns it off again. The
// namespace's ip_forward would do too, but to turn that off again overwrites the setting
// of every link.
//
// Connections of others aren't cut: no chain has the policy drop, and what is dropped is
// only what goes to the pod's bridge and isn't published. The rules of others hold
// too: where their forward chain drops by policy, as Docker's does, the pod isn't
// reached until they accept it.
//
// # Shapes
//
//	veth            uplink - routing - bfb-veth = eth0 (pod)
//	bridged         uplink - routing - bfb-br - bfb-veth = eth0 (pod)
//	nat             the same with masquerade, DNAT of the published ports and a forward filter with connection tracking
//	overlay-linux   uplink - bfb-vxlan (has the address)
//	overlay-nested  uplink - ( bfb-vxlan - bfb-br - bfb-veth, in a namespace of their own ) = eth0 (pod)
//
// The kernel modules are those that [Modules] names.
package nettopo
