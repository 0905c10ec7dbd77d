package rtnl

import (
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// GetTunnelEnds asks where a VXLAN link sends frames to, by its forwarding table,
// and puts the addresses into ends: that of unknown stations first, each once.
func GetTunnelEnds(ends *[]netip.Addr, index int) Request {
	r := newRequest("list forwarding entries", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, &neighMsg{Family: unix.AF_BRIDGE})
	r.reset = func() { *ends = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		if len(m.Data) < unix.SizeofNdMsg || int(nl.NativeEndian().Uint32(m.Data[4:])) != index {
			return nil
		}
		var end netip.Addr
		var all bool
		eachAttr(m.Data[unix.SizeofNdMsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.NDA_DST:
				end, _ = netip.AddrFromSlice(v)
			case unix.NDA_LLADDR:
				all = macOf(v).IsZero()
			}
		})
		switch {
		case !end.IsValid() || slices.Contains(*ends, end):
		case all:
			*ends = slices.Insert(*ends, 0, end)
		default:
			*ends = append(*ends, end)
		}
		return nil
	}
	return r
}

// GetPortsOf asks at which bridge ports a station is, by its MAC, and puts the
// indices of the ports into ports.
func GetPortsOf(ports *[]int, mac vnic.MAC) Request {
	r := newRequest("list forwarding entries", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, &neighMsg{Family: unix.AF_BRIDGE})
	r.reset = func() { *ports = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		if len(m.Data) < unix.SizeofNdMsg {
			return nil
		}
		eachAttr(m.Data[unix.SizeofNdMsg:], func(kind uint16, v []byte) {
			if kind == unix.NDA_LLADDR && macOf(v) == mac {
				*ports = append(*ports, int(nl.NativeEndian().Uint32(m.Data[4:])))
			}
		})
		return nil
	}
	return r
}
