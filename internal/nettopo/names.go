package nettopo

import (
	"fmt"
	"net/netip"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Names of links. They are the same for all topologies, so that one can be removed
// without knowing which it was.
const (
	vethName   = "bfb-veth"
	bridgeName = "bfb-br"
	vxlanName  = "bfb-vxlan"
)

// Group is the link group of the links that this package makes. The kernel sets it with
// the name, so a link of ours is never without it.
const Group = 0xbfb

// vxlanPort is the UDP port of both ends of a tunnel (RFC 7348).
const vxlanPort = 4789

// Modules returns the kernel modules that the topologies use, by the names of Linux
// 6.1 and later. Where they are not built in and nothing loads them on demand, they have
// to be loaded before.
func Modules() []string {
	return []string{"veth", "bridge", "vxlan", "nf_tables", "nf_conntrack", "nft_ct", "nft_chain_nat", "nft_nat", "nft_masq", "nft_fib_ipv4"}
}

// MAC returns the MAC of a pod with that IPv4 address: 02:42 and the address, as
// Docker gives it.
func MAC(a netip.Addr) vnic.MAC {
	b := a.As4()
	return vnic.MAC{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// ours tells whether l is a link of this package's making.
func ours(l rtnl.Link) bool { return l.Group == Group }

// overlayNetns returns the name of the namespace in which overlay-nested has its
// bridge. It is another one for each namespace that a topology is built in, since they
// may share /run/netns.
func overlayNetns(first *netnsx.NS) string { return fmt.Sprintf("bfb-%d", first.ID().Ino) }
