package guestside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const virtioDriver = "virtio_net"

// NICs returns the virtio NICs of the first namespace, those that the agent was
// never told of included, and the vNICs that it moved into pods, with their
// addresses. What root in a pod does may make the pod impossible to look into:
// the vNICs of such a pod are left out, and the reason is logged.
func (a *Agent) NICs(ctx context.Context) ([]vnic.NIC, error) {
	records := map[vnic.MAC]record{}
	for _, r := range a.records.all() {
		records[r.mac] = r
	}
	nics, err := a.homeNICs(records)
	if err != nil {
		return nil, fmt.Errorf("list vnics of the first namespace: %w", err)
	}
	for _, n := range nics {
		delete(records, n.MAC)
	}
	for _, r := range records {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list vnics: %w", context.Cause(ctx))
		}
		if !r.inPod {
			continue
		}
		n, ok, err := podNIC(r)
		if err != nil {
			a.log.Warn("list vnics of pod", slog.String("netns", r.netns), slog.Any("error", err))
		}
		if ok && err == nil {
			nics = append(nics, n)
		}
	}
	return nics, nil
}

func (a *Agent) homeNICs(records map[vnic.MAC]record) ([]vnic.NIC, error) {
	all, addrs, err := linksAndAddrs(a.conn)
	if err != nil {
		return nil, err
	}
	var nics []vnic.NIC
	for _, l := range all {
		r, named := recordOf(records, l)
		if l.Kind != "" && !named {
			continue // a virtual device
		}
		n, err := describe(a.conn, l)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the dump
		}
		if err != nil {
			return nil, err
		}
		if n.Driver != virtioDriver && !named {
			continue
		}
		n.ID, n.Addresses = r.id, prefixes(addrs, l.Index)
		nics = append(nics, n)
	}
	return nics, nil
}

// recordOf returns what is known of a link, from orders or by its name.
func recordOf(records map[vnic.MAC]record, l rtnl.Link) (record, bool) {
	for mac, r := range records {
		if l.HasMAC(mac) {
			return r, true
		}
	}
	id, ok := vnic.IDFromName(l.Name)
	return record{id: id}, ok
}

// podNIC returns a vNIC that was moved into a pod, and whether it is there still.
func podNIC(r record) (n vnic.NIC, ok bool, err error) {
	ns, err := netnsx.Open(r.netns)
	if errors.Is(err, vnic.ErrUnknownPod) {
		return n, false, nil
	}
	if err != nil {
		return n, false, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	err = within(ns, func(c *rtnl.Conn) error {
		all, addrs, err := linksAndAddrs(c)
		if err != nil {
			return err
		}
		l, found := rtnl.FindMAC(all, r.mac)
		if !found {
			return nil
		}
		ok = true
		n = nicOf(l)
		n.ID, n.Netns, n.PCI, n.Driver = r.id, r.netns, r.pci, r.driver
		n.Addresses = prefixes(addrs, l.Index)
		return nil
	})
	return n, ok, err
}

func linksAndAddrs(c *rtnl.Conn) (all []rtnl.Link, addrs []rtnl.Addr, err error) {
	// One after the other: a socket has one dump at a time.
	if err := c.Do(rtnl.GetLinks(&all)); err != nil {
		return nil, nil, err
	}
	return all, addrs, c.Do(rtnl.GetAddrs(&addrs))
}

// describe returns a link as a vNIC, with what its driver says of it.
func describe(c *rtnl.Conn, l rtnl.Link) (vnic.NIC, error) {
	driver, bus, err := c.Driver(l.Name)
	n := nicOf(l)
	n.Driver, n.PCI = driver, bus
	return n, err
}

func nicOf(l rtnl.Link) vnic.NIC {
	mac := l.Permanent
	if mac.IsZero() {
		mac = l.MAC
	}
	return vnic.NIC{MAC: mac, Interface: l.Name, Up: l.Up}
}
