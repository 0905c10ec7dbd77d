package rtnl

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Route is a unicast route of the main table.
type Route struct {
	vnic.Route
	Index int // the link it leads over
	// Static says that it was added by an administrator or program, not by the
	// kernel, a router advertisement or a routing daemon.
	Static bool
	// OnLink makes the kernel take Gateway for a neighbour although no address
	// of the link has it in its prefix.
	OnLink bool
}

// GetRoutes asks for the unicast routes of the main table and puts them into rs.
func GetRoutes(rs *[]Route) Request {
	r := newRequest("list routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP, nl.NewRtMsg())
	r.reset = func() { *rs = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		route, ok, err := parseRoute(m.Data)
		if ok {
			*rs = append(*rs, route)
		}
		return err
	}
	return r
}

// parseRoute reads a struct rtmsg and the attributes behind it. Routes of
// other tables and types are not ok.
func parseRoute(b []byte) (r Route, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return r, false, fmt.Errorf("parse route: %d bytes are too few", len(b))
	}
	msg := nl.DeserializeRtMsg(b)
	if msg.Table != unix.RT_TABLE_MAIN || msg.Type != unix.RTN_UNICAST || msg.Flags&unix.RTM_F_CLONED != 0 {
		return r, false, nil
	}
	attrs, err := parseAttrs(b[unix.SizeofRtMsg:])
	if err != nil {
		return r, false, fmt.Errorf("parse route: %w", err)
	}
	dst := netip.IPv4Unspecified()
	if msg.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for _, a := range attrs {
		switch a.kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(a.value)
		case unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(a.value)
		case unix.RTA_OIF:
			r.Index = intOf(a.value)
		}
	}
	r.Destination = netip.PrefixFrom(dst, int(msg.Dst_len))
	r.Static = msg.Protocol == unix.RTPROT_STATIC || msg.Protocol == unix.RTPROT_BOOT
	r.OnLink = msg.Flags&unix.RTNH_F_ONLINK != 0
	return r, r.Destination.IsValid(), nil
}

// AddRoute asks to add a route. The error is [unix.EEXIST] when there is one
// to that destination already, whatever it leads over.
func AddRoute(r Route) Request {
	return routeRequest("add", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r)
}

// AddMulticastRoute asks for the route by which a link takes in IPv6 multicast,
// as the kernel makes it (addrconf_add_mroute in net/ipv6/addrconf.c). The
// kernel does so when the link's operational state is up, which its link watch
// may tell a second late (net/core/link_watch.c); until then it drops neighbour
// solicitations. The error is [unix.EEXIST] when it is there.
func AddMulticastRoute(index int) Request {
	const ffPrefix, priority = 8, 256 // IP6_RT_PRIO_ADDRCONF
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = unix.AF_INET6, ffPrefix
	msg.Table, msg.Type, msg.Protocol = unix.RT_TABLE_LOCAL, unix.RTN_MULTICAST, unix.RTPROT_KERNEL
	all := netip.AddrFrom16([16]byte{0xff})
	return newRequest("add route ff00::/8", unix.RTM_NEWROUTE, unix.NLM_F_CREATE, msg,
		nl.NewRtAttr(unix.RTA_DST, all.AsSlice()),
		nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))),
		nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(priority)))
}

// DelRoute asks to delete a route.
func DelRoute(r Route) Request { return routeRequest("delete", unix.RTM_DELROUTE, 0, r) }

func routeRequest(verb string, kind, flags int, r Route) Request {
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(r.Destination.Addr()))
	msg.Dst_len = uint8(r.Destination.Bits())
	msg.Protocol = unix.RTPROT_STATIC
	what := fmt.Sprintf("%s route %s", verb, r.Destination)
	data := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.Index)))}
	if r.Destination.Bits() > 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_DST, r.Destination.Masked().Addr().AsSlice()))
	}
	if r.Gateway.IsValid() {
		what += " via " + r.Gateway.String()
		data = append(data, nl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
		if r.OnLink {
			msg.Flags |= unix.RTNH_F_ONLINK
		}
	} else {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if kind == unix.RTM_DELROUTE {
		msg.Protocol, msg.Scope = 0, unix.RT_SCOPE_NOWHERE // whoever made it
	}
	return newRequest(what, kind, flags, data...)
}
