// Package port keeps the host's links: a bridge for each network and a tap for
// each vNIC. Its names and aliases tell which links are brfuse's; it touches no
// other.
//
// A bridge that it makes has a MAC and an MTU of its own, which don't follow
// those of its ports, and the networks' gateway addresses. Multicast snooping
// is off: a segment that has no querier would sooner or later stop delivering
// neighbour discovery to ports whose reports it missed, and the only queriers
// here would be the pods, which are not trusted with it.
//
// The bridge of a VLAN has no address of brfuse's. Its tagged link, made for it, is as
// silent as a tap. A vNIC of a network of macvtaps has a macvtap of the uplink in place
// of the tap, under the same name, with the same alias and with the vNIC's MAC. It lasts
// until it is deleted.
//
// A tap is silent: the host has no address on it, neither sends nor hears IPv6
// and ARP there, and learns no forwarding entry from it. Its alias names its VM and
// network, and says whether it is parked: down and in no bridge because the host
// wants it so.
package port
