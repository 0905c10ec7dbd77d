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

// addVXLAN makes the VXLAN device in the first namespace, whose UDP socket it keeps
// wherever it is moved.
func (b *builder) addVXLAN(context.Context) error {
	l := newLink(vxlanName)
	l.MTU = b.MTU
	if b.Kind == OverlayLinux {
		l.MAC = MAC(b.Address.Addr())
	}
	err := b.c.Do(rtnl.AddVXLAN(l, rtnl.Tunnel{
		VNI: b.VNI, Lower: b.uplink.Index, Local: b.Local, Remote: b.Remote, Port: vxlanPort,
	}))
	if errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w; choose a vni other than %d, if a vxlan device has that", err, b.VNI)
	}
	return err
}

// leadToRemote makes the entry for the pod at the other end.
func (b *builder) leadToRemote(context.Context) error {
	if b.RemoteMAC.IsZero() {
		return nil
	}
	dev, err := b.c.Link(vxlanName)
	if err != nil {
		return err
	}
	return b.c.Do(rtnl.SetTunnel(dev.Index, b.RemoteMAC, b.Remote))
}

func (b *builder) openVXLAN(context.Context) error { return open(b.c, vxlanName, b.Address) }

// addNetns makes the namespace of the overlay's bridge.
func (b *builder) addNetns(context.Context) error {
	ns, err := netnsx.Add(overlayNetns(b.first))
	if err != nil {
		return err
	}
	return ns.Close()
}

// nest moves the VXLAN device to the overlay's namespace and joins it there with the
// pod, by a bridge and a veth pair.
func (b *builder) nest(ctx context.Context) (err error) {
	ns, err := netnsx.Open(overlayNetns(b.first))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	dev, err := b.c.Link(vxlanName)
	if err != nil {
		return err
	}
	if err := b.c.Do(rtnl.SetLink(dev.Index, rtnl.Change{Netns: ns.FD()})); err != nil {
		return err
	}
	return in(ns, func(c *rtnl.Conn) error {
		inner := *b
		inner.c = c
		return inner.bridgeVXLAN(ctx)
	})
}

func (b *builder) bridgeVXLAN(ctx context.Context) error {
	if err := b.c.Do(rtnl.AddPlainBridge(newLink(bridgeName)), b.pair()); err != nil {
		return err
	}
	for _, name := range []string{bridgeName, vxlanName} {
		if err := open(b.c, name, netip.Prefix{}); err != nil {
			return err
		}
	}
	if err := b.connectPod(ctx); err != nil {
		return err
	}
	return errors.Join(join(b.c, vxlanName), join(b.c, vethName))
}
