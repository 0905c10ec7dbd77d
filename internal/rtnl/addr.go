package rtnl

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Addr is an address of a link, with the length of its on-link prefix.
type Addr struct {
	Index  int
	Prefix netip.Prefix
}

// GetAddrs asks for the addresses of all links and puts them into as.
func GetAddrs(as *[]Addr) Request {
	r := newRequest("list addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	r.reset = func() { *as = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		a, err := parseAddr(m.Data)
		if a.Prefix.IsValid() {
			*as = append(*as, a)
		}
		return err
	}
	return r
}

// parseAddr reads a struct ifaddrmsg and the attributes behind it.
func parseAddr(b []byte) (Addr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, fmt.Errorf("parse address: %d bytes are too few", len(b))
	}
	msg := nl.DeserializeIfAddrmsg(b)
	attrs, err := parseAttrs(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Addr{}, fmt.Errorf("parse address: %w", err)
	}
	var local, peer netip.Addr
	for _, a := range attrs {
		switch a.kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.value)
		case unix.IFA_ADDRESS:
			peer, _ = netip.AddrFromSlice(a.value)
		}
	}
	if !local.IsValid() { // IPv6 has no IFA_LOCAL but on point-to-point links
		local = peer
	}
	if !local.IsValid() {
		return Addr{}, nil // another address family
	}
	return Addr{Index: int(msg.Index), Prefix: netip.PrefixFrom(local, int(msg.Prefixlen))}, nil
}

// SetAddr asks to give a link an address, to be usable at once: there is no
// duplicate address detection (RFC 4862, section 5.4), since whoever leased
// the address keeps it unique. It is no error when the link has it already.
func SetAddr(index int, p netip.Prefix) Request {
	r := addrRequest("give", unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
	switch a := p.Addr(); {
	case a.Is6():
		r.msg.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	case p.Bits() < 31: // RFC 3021: a /31 has no broadcast address
		r.msg.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, vnic.LastAddr(p).AsSlice()))
	}
	return r
}

// DelAddr asks to take an address from a link.
func DelAddr(index int, p netip.Prefix) Request {
	return addrRequest("take", unix.RTM_DELADDR, 0, index, p)
}

func addrRequest(verb string, kind, flags, index int, p netip.Prefix) Request {
	msg := nl.NewIfAddrmsg(family(p.Addr()))
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	if p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	ip := p.Addr().AsSlice()
	return newRequest(fmt.Sprintf("%s address %s", verb, p), kind, flags, msg,
		nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip))
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
