package rtnl

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// defaultQueue is how many frames wait in a tap of the kernel's own making.
const defaultQueue = 1000

// JoinPort asks for what [Handle.JoinBridge] does, of a link that is no port of the
// bridge yet, and gives it that alias first: whoever watches links sees no port
// without it. A MAC that the bridge knows already is a [unix.EEXIST]; l is a port
// then.
func JoinPort(l, bridge HostLink, mac vnic.MAC, alias string) []Request {
	join := SetLink(l.Index, Change{})
	join.what = fmt.Sprintf("make %s a port of bridge %s", l.Name, bridge.Name)
	join.msg.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	join.msg.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.Index))))

	info := nl.NewIfInfomsg(unix.AF_BRIDGE)
	info.Index = int32(l.Index)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(nl.IFLA_BRPORT_LEARNING, nl.Uint8Attr(0))
	port.AddRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, nl.Uint8Attr(0))
	quiet := newRequest("turn learning and flooding off at "+l.Name, unix.RTM_SETLINK, 0, info, port)

	entry := &neighMsg{Family: unix.AF_BRIDGE, Index: int32(l.Index), State: unix.NUD_NOARP, Flags: unix.NTF_MASTER}
	forward := newRequest("add forwarding entry for "+mac.String(), unix.RTM_NEWNEIGH,
		unix.NLM_F_CREATE|unix.NLM_F_EXCL, entry, nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	return []Request{join, quiet, forward}
}

// LeavePort asks to take a link from its bridge, if it is a port of one, to set it
// down, to keep the kernel from speaking and hearing ARP on it, and to drop the frames
// that wait in it. It has that alias before anyone sees that.
func LeavePort(l HostLink, alias string) []Request {
	c := Change{Free: true, Flags: unix.IFF_NOARP, Mask: unix.IFF_UP | unix.IFF_NOARP}
	leave := SetLink(l.Index, c)
	leave.what = "take " + l.Name + " from its bridge and set it down"
	leave.msg.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	queue := uint32(l.Queue)
	if queue == 0 {
		queue = defaultQueue
	}
	return []Request{leave, setQueue(l, 0), setQueue(l, queue)}
}

// setQueue asks to let so many frames wait in a link. What is beyond is dropped.
func setQueue(l HostLink, frames uint32) Request {
	r := SetLink(l.Index, Change{})
	r.what = fmt.Sprintf("set queue of %s to %d", l.Name, frames)
	r.msg.AddData(nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(frames)))
	return r
}

// SetupLink asks to keep the kernel from speaking and hearing ARP on a link, and
// gives it an MTU in bytes and an alias.
func SetupLink(l HostLink, mtu int, alias string) Request {
	c := Change{Flags: unix.IFF_NOARP, Mask: unix.IFF_NOARP}
	if mtu != l.MTU {
		c.MTU = mtu
	}
	r := SetLink(l.Index, c)
	r.what = fmt.Sprintf("set up link %s with mtu %d", l.Name, mtu)
	r.msg.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	return r
}

// DeleteLink asks to delete a link. For others it is gone long before the kernel
// says that it is done: that takes until nothing of the kernel's looks at it any
// more, some 20 ms.
func DeleteLink(l HostLink) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(l.Index)
	return newRequest("delete link "+l.Name, unix.RTM_DELLINK, 0, info)
}
