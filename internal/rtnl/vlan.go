package rtnl

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VLANLink is a tagged link (IEEE 802.1Q).
type VLANLink struct {
	HostLink
	Lower int // index of the link below
	Tag   int
}

// VLANLinks returns the tagged links of the namespace.
func (h *Handle) VLANLinks() ([]VLANLink, error) {
	links, err := dump(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var found []VLANLink
	for _, l := range links {
		if v, ok := l.(*netlink.Vlan); ok {
			found = append(found, VLANLink{HostLink: hostLink(l), Lower: v.ParentIndex, Tag: v.VlanId})
		}
	}
	return found, nil
}

// AddVLAN asks for a link that sends and receives what has a tag on another link. It is
// down, and what the link below is set to doesn't set it up or down. Where the
// kernel has no such links the error is [unix.EOPNOTSUPP]; where the other one has a
// link for the tag already, [unix.EEXIST].
func AddVLAN(l NewLink, lower, tag int) Request {
	r := l.add("vlan", func(data *nl.RtAttr) {
		const looseBinding = 4 // VLAN_FLAG_LOOSE_BINDING of the kernel's if_vlan.h
		data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(tag)))
		flags := append(nl.Uint32Attr(looseBinding), nl.Uint32Attr(looseBinding)...) // flags, mask
		data.AddRtAttr(nl.IFLA_VLAN_FLAGS, flags)
	})
	r.msg.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(lower))))
	return r
}
