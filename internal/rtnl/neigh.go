package rtnl

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// SetNeighbour asks for a permanent entry that tells the MAC of a neighbour on
// a link, in place of what the kernel knows or would have to ask for.
func SetNeighbour(index int, a netip.Addr, mac vnic.MAC) Request {
	msg := &neighMsg{Family: uint8(family(a)), Index: int32(index), State: unix.NUD_PERMANENT}
	return newRequest(fmt.Sprintf("set neighbour %s to %s", a, mac), unix.RTM_NEWNEIGH,
		unix.NLM_F_CREATE|unix.NLM_F_REPLACE, msg,
		nl.NewRtAttr(unix.NDA_DST, a.AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
}

// DelNeighbour asks to forget a neighbour.
func DelNeighbour(index int, a netip.Addr) Request {
	msg := &neighMsg{Family: uint8(family(a)), Index: int32(index)}
	return newRequest(fmt.Sprintf("delete neighbour %s", a), unix.RTM_DELNEIGH, 0, msg,
		nl.NewRtAttr(unix.NDA_DST, a.AsSlice()))
}

// Those states of an entry in which the kernel knows a MAC, but asks for it again sooner
// or later.
const learned = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// ConfirmNeighbours has the kernel rely on the MACs that it has learned, as it does once
// a neighbour has answered: for half a minute or so. An entry that it made because a
// neighbour asked is not relied on until 5 s after it was first used. It is for
// benchmarks: a MAC that changes meanwhile may be set back.
func (h *Handle) ConfirmNeighbours() error {
	entries, err := dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, e := range entries {
		if e.State&learned == 0 || len(e.HardwareAddr) == 0 {
			continue
		}
		e.State = netlink.NUD_REACHABLE
		if err := h.nl.NeighSet(&e); err != nil && !errors.Is(err, unix.ENODEV) { // its link may be gone
			return fmt.Errorf("confirm neighbour %s: %w", e.IP, err)
		}
	}
	return nil
}

// neighMsg is the kernel's struct ndmsg.
type neighMsg struct {
	Family uint8
	Index  int32
	State  uint16
	Flags  uint8
}

// Len is part of [nl.NetlinkRequestData].
func (*neighMsg) Len() int { return unix.SizeofNdMsg }

// Serialize is part of [nl.NetlinkRequestData].
func (m *neighMsg) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = m.Family
	nl.NativeEndian().PutUint32(b[4:], uint32(m.Index))
	nl.NativeEndian().PutUint16(b[8:], m.State)
	b[10] = m.Flags
	return b
}
