package main

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/bench/internal/floor/order"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// waitingName is what the NIC is called in the first namespace, where eth0 is the VM's own.
const waitingName = "wait0"

// nic is a NIC and all that its moves need, opened beforehand.
type nic struct {
	order   order.Order
	first   *netnsx.NS
	pod     *netnsx.NS
	outside *rtnl.Conn // in the first namespace
	inside  *rtnl.Conn // in the pod's
	index   int
	setUp   []rtnl.Request
}

func newNIC(o order.Order) (*nic, error) {
	n := &nic{order: o}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *nic) open() (err error) {
	if n.first, err = netnsx.Current(); err != nil {
		return err
	}
	if n.pod, err = netnsx.Open(n.order.Netns); err != nil {
		return err
	}
	if n.outside, err = rtnl.Dial(); err != nil {
		return err
	}
	return n.pod.Do(func() (err error) { n.inside, err = rtnl.Dial(); return err })
}

func (n *nic) close() error {
	var errs []error
	for _, c := range []*rtnl.Conn{n.inside, n.outside} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, ns := range []*netnsx.NS{n.pod, n.first} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

// await returns when the NIC is there, which it may be from the start. Before it
// waits, it calls armed.
func (n *nic) await(armed func() error) (err error) {
	mon, err := rtnl.NewMonitor(n.outside)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mon.Close()) }()
	for first := true; ; first = false {
		u, err := mon.Next() // at first, the links there are
		if err != nil {
			return err
		}
		for _, c := range u.Changes {
			if c.Link.MAC == n.order.MAC && !c.Gone {
				n.found(c.Link)
				return nil
			}
		}
		if first {
			if err := armed(); err != nil {
				return err
			}
		}
	}
}

// found makes the requests that set the NIC up in the pod. They rely on that the
// kernel keeps a NIC's index where it is free.
func (n *nic) found(l rtnl.Link) {
	n.index = l.Index
	for _, p := range n.order.Addresses {
		n.setUp = append(n.setUp, rtnl.SetAddr(n.index, p))
	}
	for _, gw := range n.order.Gateways {
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if gw.Is4() {
			all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		n.setUp = append(n.setUp, rtnl.AddRoute(rtnl.Route{Route: vnic.Route{Destination: all, Gateway: gw}, Index: n.index}))
	}
}

// enter moves the NIC to the pod and sets it up there.
func (n *nic) enter() (rep order.Report, err error) {
	start := time.Now()
	err = n.outside.Do(rtnl.SetLink(n.index, rtnl.Change{
		Netns: n.pod.FD(), Name: n.order.Interface, Flags: unix.IFF_UP, Mask: unix.IFF_UP,
	}))
	if err != nil {
		return rep, err
	}
	moved := time.Now()
	err = n.inside.Do(n.setUp...)
	return order.Report{Move: moved.Sub(start), Address: time.Since(moved)}, err
}

// leave moves the NIC back to the first namespace, down and named as it was.
func (n *nic) leave() (rep order.Report, err error) {
	start := time.Now()
	err = n.inside.Do(rtnl.SetLink(n.index, rtnl.Change{Netns: n.first.FD(), Name: waitingName, Mask: unix.IFF_UP}))
	return order.Report{Move: time.Since(start)}, err
}
