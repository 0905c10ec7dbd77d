package rtnl

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Change is what to change about a link. Zero fields leave things as they are.
//
// The kernel goes about it in this order (do_setlink in net/core/rtnetlink.c):
// namespace, MAC, MTU, name, alias, master, flags, queue, XDP. It stops at the first
// thing that fails and undoes nothing.
type Change struct {
	// Netns is a descriptor of the namespace to move to, or 0. The move sets the
	// link down and takes its addresses, routes and neighbours away.
	Netns int
	// Name is the new name. Together with Netns, no one ever sees the link under
	// the new name in the old namespace. When the new namespace has a link with
	// the old name, the kernel renames on the way; else the link arrives
	// under its old name and is renamed before anyone else gets the lock.
	Name string
	MAC  vnic.MAC
	MTU  int // bytes
	// ClearAlias takes the alias away.
	ClearAlias bool
	Alias      string
	// Master is the index of the bridge that the link becomes a port of.
	Master int
	// Free takes the link from the bridge or bond that it is a port of.
	Free bool
	// Flags are the new values of the flags in Mask (IFF_UP and others).
	Flags, Mask uint32
	// TxQueue is how many frames may wait to be sent.
	TxQueue int
	// XDP is how the XDP program is attached that is to be detached. When that can't
	// be, since a bpf_link of someone's holds it there, the error is [unix.EBUSY],
	// and all else has been done.
	XDP XDPMode
}

// SetLink asks to change the link of that index.
func SetLink(index int, c Change) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Flags, info.Change = int32(index), c.Flags, c.Mask
	r := newRequest(c.describe(index), unix.RTM_SETLINK, 0, info)
	add := func(kind int, v []byte) { r.msg.AddData(nl.NewRtAttr(kind, v)) }
	if c.Netns != 0 {
		add(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(c.Netns)))
	}
	if c.Name != "" {
		add(unix.IFLA_IFNAME, nl.ZeroTerminated(c.Name))
	}
	if !c.MAC.IsZero() {
		add(unix.IFLA_ADDRESS, c.MAC[:])
	}
	if c.MTU != 0 {
		add(unix.IFLA_MTU, nl.Uint32Attr(uint32(c.MTU)))
	}
	if c.ClearAlias {
		add(unix.IFLA_IFALIAS, []byte{0})
	}
	if c.Alias != "" {
		add(unix.IFLA_IFALIAS, []byte(c.Alias))
	}
	if c.Master != 0 {
		add(unix.IFLA_MASTER, nl.Uint32Attr(uint32(c.Master)))
	}
	if c.Free {
		add(unix.IFLA_MASTER, nl.Uint32Attr(0))
	}
	if c.TxQueue != 0 {
		add(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(c.TxQueue)))
	}
	if c.XDP != NoXDP {
		xdp := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
		xdp.AddRtAttr(nl.IFLA_XDP_FD, nl.Uint32Attr(^uint32(0)))
		if flag := xdpFlag[c.XDP]; flag != 0 {
			xdp.AddRtAttr(nl.IFLA_XDP_FLAGS, nl.Uint32Attr(flag))
		}
		r.msg.AddData(xdp)
	}
	return r
}

// xdpFlag is how the kernel is told which of a link's XDP programs is meant. A
// driver that can run them is thought to, unless it is told otherwise.
var xdpFlag = map[XDPMode]uint32{GenericXDP: unix.XDP_FLAGS_SKB_MODE, DriverXDP: unix.XDP_FLAGS_DRV_MODE, DeviceXDP: unix.XDP_FLAGS_HW_MODE}

// SetUp asks to set a link up.
func SetUp(index int) Request { return SetLink(index, Change{Flags: unix.IFF_UP, Mask: unix.IFF_UP}) }

// SetDown asks to set a link down.
func SetDown(index int) Request { return SetLink(index, Change{Mask: unix.IFF_UP}) }

func (c Change) describe(index int) string {
	var parts []string
	say := func(cond bool, format string, args ...any) {
		if cond {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	say(c.Netns != 0, "move")
	say(c.Name != "", "name %s", c.Name)
	say(!c.MAC.IsZero(), "mac %s", c.MAC)
	say(c.MTU != 0, "mtu %d", c.MTU)
	say(c.Alias != "", "alias %q", c.Alias)
	say(c.Master != 0, "master %d", c.Master)
	say(c.Mask&unix.IFF_UP != 0 && c.Flags&unix.IFF_UP != 0, "up")
	say(c.Mask&unix.IFF_UP != 0 && c.Flags&unix.IFF_UP == 0, "down")
	return fmt.Sprintf("set link %d: %s", index, strings.Join(parts, ", "))
}

// NoAutoAddress asks to keep the kernel from giving a link an IPv6 link-local
// address of its own making. Where the kernel or the link has no IPv6, the
// error is [unix.EAFNOSUPPORT].
func NoAutoAddress(index int) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	inet6 := spec.AddRtAttr(unix.AF_INET6|unix.NLA_F_NESTED, nil)
	inet6.AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(nl.IN6_ADDR_GEN_MODE_NONE))
	return newRequest(fmt.Sprintf("turn automatic addresses of link %d off", index), unix.RTM_SETLINK, 0, info, spec)
}

// DelAltNames asks to take alternative names from a link.
func DelAltNames(index int, names []string) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	props := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	for _, n := range names {
		props.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(n))
	}
	what := fmt.Sprintf("take %d alternative names from link %d", len(names), index)
	return newRequest(what, unix.RTM_DELLINKPROP, 0, info, props)
}
