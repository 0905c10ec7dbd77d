package rtnl

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// ntfSticky keeps a station at its port also when frames from it come in elsewhere
// (NTF_STICKY).
const ntfSticky = 0x40

// Where a station's entry belongs: to the link itself, such as a VXLAN link, or to the
// bridge that the link is a port of.
const (
	OfLink   uint8 = unix.NTF_SELF
	OfBridge uint8 = unix.NTF_MASTER
)

// Entry is one of the kernel's about a neighbour: which MAC an address has at a link, or
// which port or tunnel leads to a station.
type Entry struct {
	Index  int // of the link that it is at
	Master int // of the bridge whose forwarding table it is in, or 0
	// Addr is a neighbour's address; invalid in the forwarding entry of a station.
	Addr netip.Addr
	MAC  vnic.MAC
	End  netip.Addr // of the tunnel that leads to a station; invalid: none
	// Odd says that the tunnel has a port, VNI, link or next hop other than its link's.
	Odd bool
	// Gone says that the entry is none any more. It is set in news only.
	Gone bool

	state uint16
	flags uint8
}

// Permanent tells whether a neighbour's entry was made by hand or by a program.
func (e Entry) Permanent() bool { return e.state&unix.NUD_PERMANENT != 0 }

// Known tells whether the kernel knows the MAC of a neighbour for now.
func (e Entry) Known() bool {
	return e.state&(unix.NUD_PERMANENT|unix.NUD_NOARP|unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0
}

// Local tells whether a station of a bridge is one of its own: the bridge or a port.
func (e Entry) Local() bool { return e.Master != 0 && e.state&unix.NUD_PERMANENT != 0 }

// Static tells whether a station's entry neither was learned nor ages.
func (e Entry) Static() bool { return e.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 }

// Sticky tells whether a station stays where it is, whoever sends in its name.
func (e Entry) Sticky() bool { return e.flags&ntfSticky != 0 }

// AddStation asks to lead frames for a station to the bridge port of that index, a VXLAN
// link, and on to the tunnel's end: by an entry of the link, of the bridge or of both.
// Where one of them has an entry for it, the error is [unix.EEXIST].
func AddStation(of uint8, index int, mac vnic.MAC, end netip.Addr) Request {
	return station("add", unix.RTM_NEWNEIGH, of, index, mac).leadingTo(end, unix.NLM_F_EXCL)
}

// SetStation asks for what [AddStation] does, in place of what there is.
func SetStation(of uint8, index int, mac vnic.MAC, end netip.Addr) Request {
	return station("set", unix.RTM_NEWNEIGH, of, index, mac).leadingTo(end, unix.NLM_F_REPLACE)
}

// leadingTo adds the tunnel's end, which bridges make nothing of.
func (r Request) leadingTo(end netip.Addr, flag uint16) Request {
	r.msg.Flags |= unix.NLM_F_CREATE | flag
	r.msg.AddData(nl.NewRtAttr(unix.NDA_DST, end.AsSlice()))
	return r
}

// DelStation asks to delete an entry of the link's or, if it leads to the link, of the
// bridge's.
func DelStation(of uint8, index int, mac vnic.MAC) Request {
	return station("delete", unix.RTM_DELNEIGH, of, index, mac)
}

func station(verb string, kind int, of uint8, index int, mac vnic.MAC) Request {
	// Both kinds of table take this for an entry that doesn't age. A VXLAN link wants it
	// reachable, and what is permanent is a bridge's own.
	msg := &neighMsg{Family: unix.AF_BRIDGE, Index: int32(index), State: unix.NUD_NOARP | unix.NUD_REACHABLE, Flags: of}
	if kind == unix.RTM_NEWNEIGH {
		msg.Flags |= ntfSticky // of no meaning to VXLAN links
	}
	return newRequest(fmt.Sprintf("%s forwarding entry of %s", verb, mac), kind, 0, msg, nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
}

// GetStation asks for the entry that the link of that index, or the bridge that it is a
// port of, has for a station, at whatever port, and gives it to take. Where there is
// none, take isn't called.
func GetStation(take func(Entry), of uint8, index int, mac vnic.MAC) Request {
	msg := &neighMsg{Family: unix.AF_BRIDGE, Index: int32(index), Flags: of}
	r := newRequest(fmt.Sprintf("get forwarding entry of %s", mac), unix.RTM_GETNEIGH, 0, msg, nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	return r.giving(take).Tolerate(unix.ENOENT)
}

// GetNeighbour asks for a neighbour at a link and gives it to take. Where there is none,
// take isn't called.
func GetNeighbour(take func(Entry), index int, a netip.Addr) Request {
	msg := &neighMsg{Family: uint8(family(a)), Index: int32(index)}
	r := newRequest(fmt.Sprintf("get neighbour %s", a), unix.RTM_GETNEIGH, 0, msg, nl.NewRtAttr(unix.NDA_DST, a.AsSlice()))
	return r.giving(take).Tolerate(unix.ENOENT)
}

// GetStations asks for all entries of a link that is a bridge port, and those of its
// bridge that lead to it, and puts them into es.
func GetStations(es *[]Entry, index int) Request {
	// The header of a link instead of a neighbour's is how the kernel is told the port
	// (valid_fdb_dump_legacy in net/core/rtnetlink.c).
	info := nl.NewIfInfomsg(unix.AF_BRIDGE)
	info.Index = int32(index)
	return newRequest("list forwarding entries", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, info).collecting(es, index)
}

// GetNeighbours asks for the neighbours at a link of a family of addresses
// ([unix.AF_INET] or [unix.AF_INET6]) and puts them into es.
func GetNeighbours(es *[]Entry, index int, family uint8) Request {
	r := newRequest("list neighbours", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, &neighMsg{Family: family},
		nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	return r.collecting(es, index)
}

// collecting puts those entries of the answer into es that are at a link.
func (r Request) collecting(es *[]Entry, index int) Request {
	r = r.giving(func(e Entry) {
		if e.Index == index {
			*es = append(*es, e)
		}
	})
	r.reset = func() { *es = nil }
	return r
}

// giving has take get the entries of the answer.
func (r Request) giving(take func(Entry)) Request {
	r.reply = func(m syscall.NetlinkMessage) error {
		e, err := parseEntry(m.Data)
		if err == nil {
			take(e)
		}
		return err
	}
	return r
}

// parseEntry reads a struct ndmsg and the attributes behind it.
func parseEntry(b []byte) (Entry, error) {
	if len(b) < unix.SizeofNdMsg {
		return Entry{}, fmt.Errorf("parse neighbour: %d bytes are too few", len(b))
	}
	e := Entry{Index: intOf(b[4:8]), state: nl.NativeEndian().Uint16(b[8:]), flags: b[10]}
	attrs, err := parseAttrs(b[unix.SizeofNdMsg:])
	if err != nil {
		return Entry{}, fmt.Errorf("parse neighbour: %w", err)
	}
	for _, a := range attrs {
		switch a.kind {
		case unix.NDA_DST:
			if b[0] == unix.AF_BRIDGE {
				e.End, _ = netip.AddrFromSlice(a.value)
			} else {
				e.Addr, _ = netip.AddrFromSlice(a.value)
			}
		case unix.NDA_LLADDR:
			e.MAC = macOf(a.value)
		case unix.NDA_MASTER:
			e.Master = intOf(a.value)
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX, ndaNextHop:
			e.Odd = true
		}
	}
	return e, nil
}

// ndaNextHop is the group of next hops that a tunnel's end is one of (NDA_NH_ID).
const ndaNextHop = 13
