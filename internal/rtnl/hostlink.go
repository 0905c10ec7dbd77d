package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// HostLink is a link as the hypervisor's side looks at it.
type HostLink struct {
	Index  int
	Name   string
	Kind   string // "bridge", "tun", "veth"…; empty for a physical device
	Alias  string
	MAC    vnic.MAC
	MTU    int
	Master int // index of the bridge it is a port of, or 0
	Queue  int // how many frames may wait in it to be sent
	Up     bool
}

func hostLink(l netlink.Link) HostLink {
	a := l.Attrs()
	h := HostLink{
		Index: a.Index, Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU, Master: a.MasterIndex, Queue: a.TxQLen,
		Up: a.RawFlags&unix.IFF_UP != 0,
	}
	if _, ok := l.(*netlink.Tuntap); ok {
		h.Kind = "tun" // the library names it "tuntap"
	}
	copy(h.MAC[:], a.HardwareAddr)
	return h
}

// HostLink returns the link of that name. When there is none, the error is
// [fs.ErrNotExist].
func (h *Handle) HostLink(name string) (HostLink, error) {
	l, err := h.nl.LinkByName(name)
	if err != nil {
		return HostLink{}, fmt.Errorf("look up link %s: %w", name, noLink(err))
	}
	return hostLink(l), nil
}

// HostLinks returns the links whose names begin with prefix.
func (h *Handle) HostLinks(prefix string) ([]HostLink, error) {
	links, err := dump(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var found []HostLink
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, prefix) {
			found = append(found, hostLink(l))
		}
	}
	return found, nil
}

// nameOf returns the name of a link, or its number when it has none any more.
func (h *Handle) nameOf(i int) string {
	l, err := h.nl.LinkByIndex(i)
	if err != nil {
		return fmt.Sprintf("%d", i)
	}
	return l.Attrs().Name
}

// DeleteHostLink deletes a link. One that is gone already is no error.
func (h *Handle) DeleteHostLink(l HostLink) error {
	err := noLink(h.nl.LinkDel(index(l.Index)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete link %s: %w", l.Name, err)
	}
	return nil
}

// index is a link that is only known by its index.
func index(i int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: i}}
}

// noLink makes the several errors for "no such link" an [fs.ErrNotExist].
func noLink(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return fs.ErrNotExist
	}
	return err
}
