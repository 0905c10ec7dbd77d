package rtnl

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flow is a connection as the kernel tracks it.
type Flow struct {
	Protocol    uint8          // such as [unix.IPPROTO_UDP]
	Source      netip.AddrPort // who sent its first packet
	Destination netip.AddrPort // where its first packet was sent to
	Target      netip.AddrPort // who gets it, and answers
}

// Conntrack is a socket to one network namespace's connection tracking. It is
// safe for concurrent use.
type Conntrack struct{ nl *netlink.Handle }

// NewConntrack returns one of the calling thread's network namespace.
func NewConntrack() (*Conntrack, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	return &Conntrack{h}, nil
}

// Close closes the socket.
func (c *Conntrack) Close() { c.nl.Close() }

// Forget makes the kernel forget the flows of one family that match says yes
// to, and returns how many. What is still sent is then a new connection, to
// which the rules of the day apply.
func (c *Conntrack) Forget(v6 bool, match func(Flow) bool) (int, error) {
	family := netlink.InetFamily(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	var n uint
	var err error
	for range dumpTries {
		var some uint
		some, err = c.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, flowFilter(match))
		n += some
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return int(n), fmt.Errorf("forget tracked connections: %w", err)
	}
	return int(n), nil
}

type flowFilter func(Flow) bool

// MatchConntrackFlow is part of [netlink.CustomConntrackFilter].
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, ok := netip.AddrFromSlice(flow.Forward.SrcIP)
	to, ok2 := netip.AddrFromSlice(flow.Forward.DstIP)
	by, ok3 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return ok && ok2 && ok3 && f(Flow{
		Protocol:    flow.Forward.Protocol,
		Source:      netip.AddrPortFrom(from.Unmap(), flow.Forward.SrcPort),
		Destination: netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort),
		Target:      netip.AddrPortFrom(by.Unmap(), flow.Reverse.SrcPort),
	})
}
