package rtnl

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Hop is where the kernel sends a packet to.
type Hop struct {
	Index   int        // the link that it leaves by
	Gateway netip.Addr // invalid: the destination is a neighbour
	Local   bool       // it is for this namespace itself
}

// LookUpRoute asks which way a packet to that address takes, and puts it into h.
// Where there is none, the error is [unix.ENETUNREACH] or [unix.EHOSTUNREACH].
func LookUpRoute(h *Hop, to netip.Addr) Request {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(family(to)), uint8(to.BitLen())
	msg.Table, msg.Protocol, msg.Scope, msg.Type = 0, 0, 0, 0
	r := newRequest("look up route to "+to.String(), unix.RTM_GETROUTE, 0, msg, nl.NewRtAttr(unix.RTA_DST, to.AsSlice()))
	r.reset = func() { *h = Hop{} }
	r.reply = func(m syscall.NetlinkMessage) error {
		if len(m.Data) < unix.SizeofRtMsg {
			return fmt.Errorf("parse route: %d bytes are too few", len(m.Data))
		}
		h.Local = nl.DeserializeRtMsg(m.Data).Type == unix.RTN_LOCAL
		eachAttr(m.Data[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.RTA_GATEWAY:
				h.Gateway, _ = netip.AddrFromSlice(v)
			case unix.RTA_OIF:
				h.Index = intOf(v)
			}
		})
		return nil
	}
	return r
}
