package rtnl

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// NewLink is what a link of any kind is made with. All of it is there from the
// first moment on: no one sees the link without.
type NewLink struct {
	Name  string
	MAC   vnic.MAC // zero: one of the kernel's choice
	MTU   int      // bytes; 0: the kernel's default for the kind
	Group uint32   // a number that tells whose the link is; 0 is every link's default
	Netns int      // a descriptor of the namespace that it is made in; 0: this one
}

// attrs adds what l says to parent, which is a request or an attribute.
func (l NewLink) attrs(add func(kind int, value []byte)) {
	add(unix.IFLA_IFNAME, nl.ZeroTerminated(l.Name))
	if !l.MAC.IsZero() {
		add(unix.IFLA_ADDRESS, l.MAC[:])
	}
	if l.MTU != 0 {
		add(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.MTU)))
	}
	if l.Group != 0 {
		add(unix.IFLA_GROUP, nl.Uint32Attr(l.Group))
	}
	if l.Netns != 0 {
		add(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(l.Netns)))
	}
}

// add asks for a link of that kind. Where there is one of that name, the error is
// [unix.EEXIST]; where the kernel has no such kind, [unix.EOPNOTSUPP].
func (l NewLink) add(kind string, data func(*nl.RtAttr)) Request {
	r := newRequest(fmt.Sprintf("add %s %s", kind, l.Name), unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC))
	l.attrs(func(kind int, v []byte) { r.msg.AddData(nl.NewRtAttr(kind, v)) })
	info := nl.NewRtAttr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	if data != nil {
		data(info.AddRtAttr(nl.IFLA_INFO_DATA|unix.NLA_F_NESTED, nil))
	}
	r.msg.AddData(info)
	return r
}

// AddPlainBridge asks for a bridge as the kernel makes them: it learns, floods and
// snoops multicast. It is down.
func AddPlainBridge(l NewLink) Request { return l.add("bridge", nil) }

// AddVeth asks for a pair of links, each of which gets what the other sends. Each
// may be made in another namespace. Both are down.
func AddVeth(l, peer NewLink) Request {
	r := l.add("veth", func(data *nl.RtAttr) {
		p := data.AddRtAttr(nl.VETH_INFO_PEER, nil)
		nl.NewIfInfomsgChild(p, unix.AF_UNSPEC)
		peer.attrs(func(kind int, v []byte) { p.AddRtAttr(kind, v) })
	})
	r.what += " with peer " + peer.Name
	return r
}

// Tunnel says how a new VXLAN link tunnels Ethernet over UDP (RFC 7348). It learns nothing: a
// frame for a MAC without a forwarding entry goes to Remote.
type Tunnel struct {
	VNI           uint32 // the network's number, under 1<<24
	Lower         int    // index of the link that the tunnel's packets go out by
	Local, Remote netip.Addr
	Port          uint16 // of both ends; usual is 4789
}

// AddVXLAN asks for a VXLAN link. It is down. Where the namespace has one with the
// same VNI and port, also one that has moved away since, the error is [unix.EEXIST].
func AddVXLAN(l NewLink, v Tunnel) Request {
	local, remote := nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_GROUP
	if v.Remote.Is6() {
		local, remote = nl.IFLA_VXLAN_LOCAL6, nl.IFLA_VXLAN_GROUP6
	}
	return l.add("vxlan", func(data *nl.RtAttr) {
		data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(v.VNI))
		data.AddRtAttr(nl.IFLA_VXLAN_LINK, nl.Uint32Attr(uint32(v.Lower)))
		data.AddRtAttr(local, v.Local.AsSlice())
		data.AddRtAttr(remote, v.Remote.AsSlice())
		data.AddRtAttr(nl.IFLA_VXLAN_PORT, []byte{byte(v.Port >> 8), byte(v.Port)})
		data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(0))
	})
}

// DelLink asks to delete a link, with its peer if it is one of a pair. One that is
// gone already is a [unix.ENODEV].
func DelLink(index int) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	return newRequest(fmt.Sprintf("delete link %d", index), unix.RTM_DELLINK, 0, info)
}

// SetTunnel asks a VXLAN link to send what is for mac to the tunnel's end at remote.
func SetTunnel(index int, mac vnic.MAC, remote netip.Addr) Request {
	msg := &neighMsg{Family: unix.AF_BRIDGE, Index: int32(index), State: unix.NUD_PERMANENT | unix.NUD_NOARP, Flags: unix.NTF_SELF}
	return newRequest(fmt.Sprintf("lead %s to %s", mac, remote), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		msg, nl.NewRtAttr(unix.NDA_LLADDR, mac[:]), nl.NewRtAttr(unix.NDA_DST, remote.AsSlice()))
}
