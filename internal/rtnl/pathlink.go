package rtnl

import (
	"net/netip"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// PathLink is a link with what leads on from it, and with its counters.
type PathLink struct {
	Link
	// Peer is IFLA_LINK: the index of a veth's other end, or of the device below a
	// VLAN or macvlan; 0: there is none.
	Peer int
	// PeerNetns is the id, as the link's own namespace knows it, of the namespace
	// that Peer is in, or that a VXLAN sends in; -1: the link's own.
	PeerNetns int
	RxQueues  int // queues that it was made with
	TxQueues  int
	Qdisc     string      // the root queueing discipline
	VXLAN     *VXLANFacts // of a VXLAN device
	Tap       *TapFlags
	Stats     LinkStats
}

// VXLANFacts are what a VXLAN device is set to.
type VXLANFacts struct {
	VNI    uint32
	Port   uint16 // UDP port of the other ends
	Lower  int    // index of the device that it is bound to, or 0
	Local  netip.Addr
	Remote netip.Addr // of what the forwarding table doesn't know; invalid: none
}

// TapFlags are what a tap was made with.
type TapFlags struct {
	VnetHdr    bool // frames have a virtio-net header, which offloads need
	MultiQueue bool
	Queues     int // opened ones
}

// LinkStats are a link's counters (struct rtnl_link_stats64), since it was made.
type LinkStats struct {
	RxPackets, TxPackets, RxBytes, TxBytes, RxErrors, TxErrors, RxDropped, TxDropped uint64
}

// GetPathLink asks for the link of that index and puts it into l. When there is
// none, the error is [unix.ENODEV].
func GetPathLink(l *PathLink, index int) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	return pathLink(newRequest("look up link "+strconv.Itoa(index), unix.RTM_GETLINK, 0, info), l)
}

// GetPathLinkName asks for the link of that name; see [GetPathLink].
func GetPathLinkName(l *PathLink, name string) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	return pathLink(newRequest("look up link "+name, unix.RTM_GETLINK, 0, info, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))), l)
}

func pathLink(r Request, l *PathLink) Request {
	r.reset = func() { *l = PathLink{} }
	r.reply = func(m syscall.NetlinkMessage) (err error) {
		*l, err = parsePathLink(m.Data)
		return err
	}
	return r
}

// parsePathLink reads a struct ifinfomsg and the attributes behind it.
func parsePathLink(b []byte) (PathLink, error) {
	link, err := parseLink(b)
	if err != nil {
		return PathLink{}, err
	}
	l := PathLink{Link: link, PeerNetns: -1}
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_LINK:
			l.Peer = intOf(v)
		case unix.IFLA_LINK_NETNSID:
			l.PeerNetns = int(int32(intOf(v)))
		case unix.IFLA_NUM_RX_QUEUES:
			l.RxQueues = intOf(v)
		case unix.IFLA_NUM_TX_QUEUES:
			l.TxQueues = intOf(v)
		case unix.IFLA_QDISC:
			l.Qdisc = unix.ByteSliceToString(v)
		case unix.IFLA_STATS64:
			l.Stats = parseStats(v)
		case unix.IFLA_LINKINFO:
			l.info(v)
		}
	})
	return l, nil
}

// parseStats reads the beginning of a struct rtnl_link_stats64.
func parseStats(b []byte) (s LinkStats) {
	for i, to := range []*uint64{
		&s.RxPackets, &s.TxPackets, &s.RxBytes, &s.TxBytes, &s.RxErrors, &s.TxErrors, &s.RxDropped, &s.TxDropped,
	} {
		if len(b) >= 8*(i+1) {
			*to = nl.NativeEndian().Uint64(b[8*i:])
		}
	}
	return s
}

// info reads what only devices of one kind have.
func (l *PathLink) info(b []byte) {
	eachAttr(b, func(kind uint16, v []byte) {
		switch {
		case kind != unix.IFLA_INFO_DATA:
		case l.Kind == "vxlan":
			l.VXLAN = parseVXLAN(v)
		case l.Kind == "tun":
			l.Tap = parseTap(v)
		}
	})
}

func parseVXLAN(b []byte) *VXLANFacts {
	x := &VXLANFacts{}
	eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case nl.IFLA_VXLAN_ID:
			x.VNI = uint32(intOf(v))
		case nl.IFLA_VXLAN_PORT:
			if len(v) == 2 {
				x.Port = uint16(v[0])<<8 | uint16(v[1])
			}
		case nl.IFLA_VXLAN_LINK:
			x.Lower = intOf(v)
		case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
			x.Local, _ = netip.AddrFromSlice(v)
		case nl.IFLA_VXLAN_GROUP, nl.IFLA_VXLAN_GROUP6:
			x.Remote, _ = netip.AddrFromSlice(v)
		}
	})
	return x
}

// Attributes of a tap (IFLA_TUN_* of the kernel's if_link.h).
const (
	tunVnetHdr    = 5
	tunMultiQueue = 7
	tunQueues     = 8
)

func parseTap(b []byte) *TapFlags {
	t := &TapFlags{}
	eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case tunVnetHdr:
			t.VnetHdr = len(v) == 1 && v[0] != 0
		case tunMultiQueue:
			t.MultiQueue = len(v) == 1 && v[0] != 0
		case tunQueues:
			t.Queues = intOf(v)
		}
	})
	return t
}

// generic is the kernel's struct rtgenmsg, padded.
type generic struct{}

const genericSize = 4

// Len is part of [nl.NetlinkRequestData].
func (generic) Len() int { return genericSize }

// Serialize is part of [nl.NetlinkRequestData].
func (generic) Serialize() []byte { return make([]byte, genericSize) }

// GetNetnsID asks for the id that the connection's namespace has for the one that
// fd is open on, and puts it into id; -1: it has none.
func GetNetnsID(id *int, fd int) Request {
	const netnsaNSID, netnsaFD = 1, 3 // of the kernel's net_namespace.h
	r := newRequest("ask for the id of a network namespace", unix.RTM_GETNSID, 0,
		generic{}, nl.NewRtAttr(netnsaFD, nl.Uint32Attr(uint32(fd))))
	r.reset = func() { *id = -1 }
	r.reply = func(m syscall.NetlinkMessage) error {
		if len(m.Data) >= genericSize {
			eachAttr(m.Data[genericSize:], func(kind uint16, v []byte) {
				if kind == netnsaNSID {
					*id = int(int32(intOf(v)))
				}
			})
		}
		return nil
	}
	return r
}
