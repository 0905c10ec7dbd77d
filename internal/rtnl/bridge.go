package rtnl

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Bridge says how a bridge is made.
type Bridge struct {
	Name  string
	Alias string
	MAC   vnic.MAC // explicit, so that it doesn't follow the ports'
	MTU   int      // bytes; explicit too
}

// UnfinishedBridge starts the names of bridges that [Handle.AddBridge] has not
// finished. What is left of one when its process dies is down and has no port.
const UnfinishedBridge = "bfnew-"

// AddBridge makes a bridge that is down and has no multicast snooping. It gets
// its name last, so a bridge of that name is never without its alias. When a
// link has the name already, the error is [fs.ErrExist].
func (h *Handle) AddBridge(b Bridge) error {
	l, err := h.addUnfinished(b)
	if err == nil {
		if err = h.finishBridge(l, b); err != nil {
			err = errors.Join(err, h.DeleteHostLink(l))
		}
	}
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", b.Name, err)
	}
	return nil
}

func (h *Handle) addUnfinished(b Bridge) (HostLink, error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = UnfinishedBridge+hex.EncodeToString(id[:]), b.MAC.HardwareAddr()
	// A bridge follows its ports' smallest MTU until its own is changed; the one
	// that it is made with doesn't count.
	attrs.MTU = b.MTU + 1
	err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w: load the kernel module bridge", err, vnic.ErrUnsupported)
	}
	if err != nil {
		return HostLink{}, err
	}
	return h.HostLink(attrs.Name)
}

func (h *Handle) finishBridge(l HostLink, b Bridge) error {
	if err := h.SetLinkMTU(l, b.MTU); err != nil {
		return err
	}
	if err := h.SetLinkAlias(l, b.Alias); err != nil {
		return err
	}
	err := noLink(h.nl.LinkSetName(index(l.Index), b.Name))
	if errors.Is(err, unix.EEXIST) {
		err = fs.ErrExist
	}
	if err != nil {
		return fmt.Errorf("rename %s: %w", l.Name, err)
	}
	return nil
}

// SetLinkMTU sets a link's MTU in bytes.
func (h *Handle) SetLinkMTU(l HostLink, mtu int) error {
	if err := noLink(h.nl.LinkSetMTU(index(l.Index), mtu)); err != nil {
		return fmt.Errorf("set mtu of %s to %d: %w", l.Name, mtu, err)
	}
	return nil
}

// SetLinkAlias sets a link's alias.
func (h *Handle) SetLinkAlias(l HostLink, alias string) error {
	if err := noLink(h.nl.LinkSetAlias(index(l.Index), alias)); err != nil {
		return fmt.Errorf("set alias of %s: %w", l.Name, err)
	}
	return nil
}

// SetLinkUp sets a link up.
func (h *Handle) SetLinkUp(l HostLink) error {
	if err := noLink(h.nl.LinkSetUp(index(l.Index))); err != nil {
		return fmt.Errorf("set %s up: %w", l.Name, err)
	}
	return nil
}

// SetLinkNoARP keeps the kernel from speaking and hearing ARP on a link.
func (h *Handle) SetLinkNoARP(l HostLink) error {
	if err := noLink(h.nl.LinkSetARPOff(index(l.Index))); err != nil {
		return fmt.Errorf("turn arp off on %s: %w", l.Name, err)
	}
	return nil
}

// JoinBridge makes l a port of a bridge for the one station with that MAC. The
// port learns no addresses, so a frame with a forged source can't redirect
// traffic; it has a static forwarding entry for mac instead, and no frame for
// an unknown station is flooded to it. Repeating it is harmless.
//
// A MAC that the bridge has, or one of its other ports, is a
// [vnic.ErrAddressTaken]: l is no port then unless it was one before. Of two
// concurrent calls with the same MAC both may succeed.
func (h *Handle) JoinBridge(l, bridge HostLink, mac vnic.MAC) error {
	link := index(l.Index)
	steps := []struct {
		what string
		do   func() error
	}{
		{"join", func() error {
			if l.Master == bridge.Index {
				return nil
			}
			return h.nl.LinkSetMasterByIndex(link, bridge.Index)
		}},
		{"turn learning off", func() error { return h.nl.LinkSetLearning(link, false) }},
		{"turn flooding off", func() error { return h.nl.LinkSetFlood(link, false) }},
		{"add forwarding entry", func() error { return h.setForwarding(l, bridge, mac) }},
	}
	for _, s := range steps {
		err := noLink(s.do())
		if err == nil {
			continue
		}
		if l.Master != bridge.Index {
			err = errors.Join(err, h.LeaveBridge(l))
		}
		return fmt.Errorf("port %s of bridge %s: %s: %w", l.Name, bridge.Name, s.what, err)
	}
	return nil
}

// setForwarding adds the port's static entry for mac. One that the bridge
// merely learned at another port gives way.
func (h *Handle) setForwarding(l, bridge HostLink, mac vnic.MAC) error {
	entry := &netlink.Neigh{
		LinkIndex: l.Index, Family: unix.AF_BRIDGE, HardwareAddr: mac.HardwareAddr(),
		State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER,
	}
	// Exclusive: to replace the bridge's own entry is to cut the host off.
	err := h.nl.NeighAdd(entry)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := h.checkForwarding(l, bridge, mac); err != nil {
		return err
	}
	return h.nl.NeighSet(entry)
}

// checkForwarding returns a [vnic.ErrAddressTaken] when the bridge has an entry
// for mac that is neither l's nor learned.
func (h *Handle) checkForwarding(l, bridge HostLink, mac vnic.MAC) error {
	entries, err := dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, e := range entries {
		if e.MasterIndex != bridge.Index || !bytes.Equal(e.HardwareAddr, mac[:]) {
			continue
		}
		local, static := e.State&netlink.NUD_PERMANENT != 0, e.State&netlink.NUD_NOARP != 0
		if !local && (!static || e.LinkIndex == l.Index) {
			continue
		}
		whose := "bridge " + bridge.Name
		if e.LinkIndex != bridge.Index {
			whose = fmt.Sprintf("port %s of bridge %s", h.nameOf(e.LinkIndex), bridge.Name)
		}
		return &vnic.TakenError{What: "mac " + mac.String(), Why: "is that of " + whose + "; choose another", Err: vnic.ErrAddressTaken}
	}
	return nil
}

// LeaveBridge takes l from its bridge, and the port's forwarding entries with
// it. A link that is gone or is no port is no error.
func (h *Handle) LeaveBridge(l HostLink) error {
	err := noLink(h.nl.LinkSetNoMaster(index(l.Index)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take %s from its bridge: %w", l.Name, err)
	}
	return nil
}

// BridgePorts returns the ports of a bridge.
func (h *Handle) BridgePorts(bridge HostLink) ([]HostLink, error) {
	all, err := h.HostLinks("")
	if err != nil {
		return nil, err
	}
	var ports []HostLink
	for _, l := range all {
		if l.Master == bridge.Index {
			ports = append(ports, l)
		}
	}
	return ports, nil
}

// SetHostAddrs gives a link exactly those addresses, and takes others away but
// for IPv6 link-local ones. They are usable at once: duplicate address
// detection is left out. Of several in one subnet the first is the source of what
// the host sends there by itself: of IPv4 as the kernel's primary address, of IPv6
// since the others are deprecated (RFC 6724, section 5, rule 3).
func (h *Handle) SetHostAddrs(l HostLink, want []netip.Prefix) error {
	have, err := h.hostAddrs(l)
	if err != nil {
		return err
	}
	var wrong []netlink.Addr
	for p, a := range have {
		if !keepHostAddr(want, have, p) {
			wrong = append(wrong, a)
		}
	}
	if len(wrong) == 0 {
		return h.addHostAddrs(l, have, want)
	}
	// A link that loses its last address of IPv4 loses its permanent neighbours, too. So
	// it has one without a subnet meanwhile.
	var meanwhile netip.Prefix
	if i := slices.IndexFunc(want, func(p netip.Prefix) bool { return p.Addr().Is4() }); i >= 0 {
		meanwhile = netip.PrefixFrom(want[i].Addr(), want[i].Addr().BitLen())
		if err := h.setHostAddr(l, meanwhile, false); err != nil {
			return fmt.Errorf("give address %s to %s: %w", meanwhile, l.Name, noLink(err))
		}
	}
	for _, a := range wrong {
		if hostPrefix(a.IPNet) != meanwhile {
			err = errors.Join(err, h.delHostAddr(l, a))
		}
	}
	if err == nil { // with a primary address the kernel takes others of its subnet away, unless it promotes one
		have, err = h.hostAddrs(l)
	}
	if err == nil {
		err = h.addHostAddrs(l, have, want)
	}
	if meanwhile.IsValid() && !slices.Contains(want, meanwhile) {
		err = errors.Join(err, h.delHostAddr(l, netlink.Addr{IPNet: hostIPNet(meanwhile)}))
	}
	return err
}

// addHostAddrs gives a link those of the addresses that it has not, or has otherwise.
func (h *Handle) addHostAddrs(l HostLink, have map[netip.Prefix]netlink.Addr, want []netip.Prefix) error {
	for i, p := range want {
		deprecated := p.Addr().Is6() && slices.ContainsFunc(want[:i], inSubnetOf(p))
		if a, has := have[p]; has && (a.Flags&unix.IFA_F_DEPRECATED != 0) == deprecated {
			continue
		}
		if err := h.setHostAddr(l, p, deprecated); err != nil {
			return fmt.Errorf("give address %s to %s: %w", p, l.Name, noLink(err))
		}
	}
	return nil
}

// delHostAddr takes an address away. That there is none is no error.
func (h *Handle) delHostAddr(l HostLink, a netlink.Addr) error {
	err := h.nl.AddrDel(index(l.Index), &a)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take address %s from %s: %w", hostPrefix(a.IPNet), l.Name, noLink(err))
	}
	return nil
}

// keepHostAddr says whether an address may stay. One of IPv4 that is wanted has to come
// anew where the first of its subnet is not the primary one yet.
func keepHostAddr(want []netip.Prefix, have map[netip.Prefix]netlink.Addr, p netip.Prefix) bool {
	if !slices.Contains(want, p) {
		return p.Addr().IsLinkLocalUnicast() && p.Addr().Is6()
	}
	first := want[slices.IndexFunc(want, inSubnetOf(p))]
	if p.Addr().Is6() || p == first {
		return true
	}
	a, has := have[first]
	return has && a.Flags&unix.IFA_F_SECONDARY == 0
}

func inSubnetOf(p netip.Prefix) func(netip.Prefix) bool {
	return func(q netip.Prefix) bool { return q.Masked() == p.Masked() }
}

// hostAddrs returns the addresses of a link.
func (h *Handle) hostAddrs(l HostLink) (map[netip.Prefix]netlink.Addr, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(index(l.Index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Name, noLink(err))
	}
	byPrefix := make(map[netip.Prefix]netlink.Addr, len(list))
	for _, a := range list {
		byPrefix[hostPrefix(a.IPNet)] = a
	}
	return byPrefix, nil
}

func (h *Handle) setHostAddr(l HostLink, p netip.Prefix, deprecated bool) error {
	a := &netlink.Addr{IPNet: hostIPNet(p)}
	if p.Addr().Is6() {
		forever := uint32(math.MaxUint32) // a constant would not fit into an int of 32 bits
		a.Flags, a.ValidLft, a.PreferedLft = unix.IFA_F_NODAD, int(forever), int(forever)
	}
	if deprecated {
		a.PreferedLft = 0
	}
	return h.nl.AddrReplace(index(l.Index), a)
}

func hostIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostPrefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
