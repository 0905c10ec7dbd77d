package rtnl

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VXLAN is how a VXLAN link is set (RFC 7348). It is comparable.
type VXLAN struct {
	VNI   uint32     // the network's number, under 1<<24
	Port  uint16     // of both ends
	Local netip.Addr // that its packets come from
	TTL   uint8      // of its packets; 0: the kernel's default

	// What follows is not set in a link of [AddOverlay]'s.

	Remote   netip.Addr // where frames for unknown stations go; invalid: nowhere
	Lower    int        // index of the link that its packets are bound to, or 0
	Learning bool       // it learns where stations are from the packets that come in
	ZeroSum  bool       // it sends packets without a checksum, or accepts such over IPv6
}

// PortFlags are what a bridge does at a port.
type PortFlags struct {
	Learning       bool // takes the sources of frames for stations at the port
	UnicastFlood   bool // sends frames for unknown stations out there
	MulticastFlood bool
	BroadcastFlood bool
	// NeighSuppress has the bridge answer ARP requests and neighbour solicitations
	// itself that ask for stations at the port, from the neighbours of the bridge, and
	// send none that it can answer out there (net/bridge/br_arp_nd_proxy.c).
	NeighSuppress bool
}

// Tunneler is a VXLAN link, and a port of a bridge if it has a master.
type Tunneler struct {
	Link
	VXLAN
	AtBridge PortFlags
}

// AddOverlay asks for a VXLAN link that learns nothing and sends only to stations that
// it has an entry for. Its packets have checksums. It is down. Where the namespace has
// one with the same VNI and port, also one that has moved away since, the error is
// [unix.EEXIST].
func AddOverlay(l NewLink, v VXLAN) Request {
	local, off, on := nl.IFLA_VXLAN_LOCAL, nl.Uint8Attr(0), nl.Uint8Attr(1)
	if v.Local.Is6() {
		local = nl.IFLA_VXLAN_LOCAL6
	}
	return l.add("vxlan", func(data *nl.RtAttr) {
		data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(v.VNI))
		data.AddRtAttr(local, v.Local.AsSlice())
		data.AddRtAttr(nl.IFLA_VXLAN_PORT, []byte{byte(v.Port >> 8), byte(v.Port)})
		data.AddRtAttr(nl.IFLA_VXLAN_TTL, nl.Uint8Attr(v.TTL))
		data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, off)
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, on)
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, off)
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, off)
	})
}

// GetTunneler asks for the VXLAN link of that name and puts it into t. Where there is
// no link, the error is [unix.ENODEV]; a link of another kind has no VNI.
func GetTunneler(t *Tunneler, name string) Request {
	return GetLink(&t.Link, name).intoTunneler(t)
}

// GetTunnelers asks for all VXLAN links and puts them into ts.
func GetTunnelers(ts *[]Tunneler) Request {
	r := getLink("list vxlan links", unix.NLM_F_DUMP, 0)
	r.reset = func() { *ts = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		t, err := parseTunneler(m.Data)
		if t.Kind == "vxlan" {
			*ts = append(*ts, t)
		}
		return err
	}
	return r
}

func (r Request) intoTunneler(t *Tunneler) Request {
	r.reset = func() { *t = Tunneler{} }
	r.reply = func(m syscall.NetlinkMessage) (err error) {
		*t, err = parseTunneler(m.Data)
		return err
	}
	return r
}

// parseTunneler reads a link with what its kind and its bridge tell about it.
func parseTunneler(b []byte) (Tunneler, error) {
	l, err := parseLink(b)
	if err != nil {
		return Tunneler{}, err
	}
	t := Tunneler{Link: l}
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		if kind == unix.IFLA_LINKINFO {
			t.readInfo(v)
		}
	})
	return t, nil
}

func (t *Tunneler) readInfo(b []byte) {
	var master string
	eachAttr(b, func(kind uint16, v []byte) {
		switch {
		case kind == nl.IFLA_INFO_DATA && t.Kind == "vxlan":
			eachAttr(v, t.setVXLAN)
		case kind == nl.IFLA_INFO_SLAVE_KIND:
			master = unix.ByteSliceToString(v)
		case kind == nl.IFLA_INFO_SLAVE_DATA && master == "bridge":
			eachAttr(v, t.AtBridge.set)
		}
	})
}

func (t *Tunneler) setVXLAN(kind uint16, v []byte) {
	x := &t.VXLAN
	on := len(v) == 1 && v[0] != 0
	switch kind {
	case nl.IFLA_VXLAN_ID:
		x.VNI = uint32(intOf(v))
	case nl.IFLA_VXLAN_PORT:
		if len(v) == 2 {
			x.Port = uint16(v[0])<<8 | uint16(v[1])
		}
	case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
		x.Local, _ = netip.AddrFromSlice(v)
	case nl.IFLA_VXLAN_GROUP, nl.IFLA_VXLAN_GROUP6:
		x.Remote, _ = netip.AddrFromSlice(v)
	case nl.IFLA_VXLAN_LINK:
		x.Lower = intOf(v)
	case nl.IFLA_VXLAN_TTL:
		if len(v) == 1 {
			x.TTL = v[0]
		}
	case nl.IFLA_VXLAN_LEARNING:
		x.Learning = on
	case nl.IFLA_VXLAN_UDP_CSUM: // of IPv4; off as the kernel tells it for tunnels over IPv6 too
		x.ZeroSum = x.ZeroSum || !on
	case nl.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX:
		x.ZeroSum = x.ZeroSum || on
	}
}

func (f *PortFlags) set(kind uint16, v []byte) {
	on := len(v) == 1 && v[0] != 0
	switch kind {
	case nl.IFLA_BRPORT_LEARNING:
		f.Learning = on
	case nl.IFLA_BRPORT_UNICAST_FLOOD:
		f.UnicastFlood = on
	case nl.IFLA_BRPORT_MCAST_FLOOD:
		f.MulticastFlood = on
	case nl.IFLA_BRPORT_BCAST_FLOOD:
		f.BroadcastFlood = on
	case nl.IFLA_BRPORT_NEIGH_SUPPRESS:
		f.NeighSuppress = on
	}
}

// SetPort asks for flags of a link that is a port of a bridge.
func SetPort(index int, f PortFlags) Request {
	info := nl.NewIfInfomsg(unix.AF_BRIDGE)
	info.Index = int32(index)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for kind, on := range map[int]bool{
		nl.IFLA_BRPORT_LEARNING:       f.Learning,
		nl.IFLA_BRPORT_UNICAST_FLOOD:  f.UnicastFlood,
		nl.IFLA_BRPORT_MCAST_FLOOD:    f.MulticastFlood,
		nl.IFLA_BRPORT_BCAST_FLOOD:    f.BroadcastFlood,
		nl.IFLA_BRPORT_NEIGH_SUPPRESS: f.NeighSuppress,
	} {
		v := uint8(0)
		if on {
			v = 1
		}
		port.AddRtAttr(kind, nl.Uint8Attr(v))
	}
	return newRequest(fmt.Sprintf("set bridge port %d to %+v", index, f), unix.RTM_SETLINK, 0, info, port)
}
