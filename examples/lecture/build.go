package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// side is one of the two namespaces.
type side struct {
	name   string
	ns     *netnsx.NS
	prefix netip.Prefix // of its bridge
}

func (s side) String() string {
	return fmt.Sprintf("namespace %s: bridge br0 %s with port veth0", s.name, s.prefix)
}

// join makes a veth pair with an end in each namespace, and a bridge over each
// end. The ends are born where they belong: nothing has to be moved.
func join(l, r side) error {
	err := l.ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "veth0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "veth0", PeerNamespace: netlink.NsFd(r.ns.FD())})
	})
	if err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	for _, s := range []side{l, r} {
		if err := s.ns.Do(func() error { return bridge(s.prefix) }); err != nil {
			return fmt.Errorf("bridge in namespace %s: %w", s.name, err)
		}
	}
	return nil
}

// bridge puts veth0 under a bridge that has the address, in the calling
// thread's namespace.
func bridge(p netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	port, err := netlink.LinkByName("veth0")
	if err != nil {
		return fmt.Errorf("look up veth0: %w", err)
	}
	if err := netlink.LinkSetMaster(port, br); err != nil {
		return fmt.Errorf("add port: %w", err)
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if err := netlink.AddrAdd(br, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	for _, l := range []netlink.Link{port, br} {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// path returns the devices that a packet crosses on its way out of a namespace:
// from the one with the address down to the port.
func path(ns *netnsx.NS) (names []string, err error) {
	err = ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		for _, master := range links {
			for _, l := range links {
				if l.Attrs().MasterIndex == master.Attrs().Index {
					names = append(names, master.Attrs().Name, l.Attrs().Name)
				}
			}
		}
		return nil
	})
	return names, err
}
