package nettopo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// Down removes the topology that is in the network namespace of the calling thread, of
// whichever kind and however much there is of it, and sets the uplink's forwarding
// back. It is no error when there is none, or when pod or uplink are gone. When some of
// it can't be removed, the rest is, and Down may be repeated.
//
// Connections that a NAT tracked are forgotten, so that none leads to a pod that is
// gone; s tells the pod's address. A kernel without the module nf_conntrack_netlink
// lets them expire instead. Errors are [vnic.ErrInvalid] for a bad spec, and
// ctx's own.
func Down(ctx context.Context, s Spec) error {
	if err := s.Check(); err != nil {
		return err
	}
	if err := remove(ctx, s); err != nil {
		return fmt.Errorf("remove topology %s: %w", s.Kind, err)
	}
	return nil
}

func remove(ctx context.Context, s Spec) error {
	var errs error
	for _, do := range []func() error{
		func() error { return removeTable(s.Address.Addr()) },
		removeLinks,
		removeNetns,
	} {
		if err := ctx.Err(); err != nil {
			return errors.Join(errs, err)
		}
		errs = errors.Join(errs, do())
	}
	return errs
}

// removeLinks deletes our links in the calling thread's namespace.
func removeLinks() (err error) {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var errs error
	for _, l := range links {
		if !ours(l) || l.Name != vethName && l.Name != bridgeName && l.Name != vxlanName {
			continue
		}
		if err := unforward(l); err != nil { // and l goes on remembering it
			errs = errors.Join(errs, err)
			continue
		}
		errs = errors.Join(errs, c.Do(rtnl.DelLink(l.Index).Tolerate(unix.ENODEV)))
	}
	return errs
}

// removeNetns deletes the namespace of overlay-nested, after the links in it: by itself
// the kernel does that later, and a new device of the same VNI couldn't be made
// meanwhile.
func removeNetns() (err error) {
	first, err := netnsx.Current()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.Close()) }()
	name := overlayNetns(first)
	if found, err := netnsx.Exists(name); err != nil || !found {
		return err
	}
	if ns, err := netnsx.Open(name); err == nil { // else it is a file without a namespace
		if err := errors.Join(ns.Do(removeLinks), ns.Close()); err != nil {
			return err
		}
	}
	return netnsx.Remove(name)
}

// forget makes the kernel forget the tracked connections of a pod. A kernel that can't
// be asked to lets them expire.
func forget(pod netip.Addr) error {
	c, err := rtnl.NewConntrack()
	if err != nil {
		return nil //nolint:nilerr // no such socket family
	}
	defer c.Close()
	_, err = c.Forget(false, func(f rtnl.Flow) bool { return f.Source.Addr() == pod || f.Target.Addr() == pod })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // without nf_conntrack_netlink
		return nil
	}
	return err
}
