package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const kindBridge = "bridge"

// alias proves that a bridge is the network's.
func alias(network string) string { return "brfuse network " + network }

// SetNetwork makes sure that the network's bridge is there and as n says: its
// alias, MTU and gateway addresses, up, and the host forwards. Of an external
// bridge it only checks that there is one. One of a VLAN has a tagged link of the
// uplink as a port, and, as one without subnets, whatever addresses others give it. A
// network of macvtaps has nothing but its uplink, which is checked. A link of that
// name without the network's alias is a [vnic.ErrConflict]. n is complete. own are
// addresses of the host's beside the gateways, from which it speaks itself.
func (l *Links) SetNetwork(ctx context.Context, n vnic.Network, own ...netip.Prefix) error {
	if n.Kind == vnic.KindMacvtap {
		return l.checkMacvtap(n)
	}
	if n.External {
		if err := l.checkExternal(n); err != nil || !n.Masquerade {
			return err
		}
		return l.Inside(ctx, func() error { return l.forward(n.Gateways) })
	}
	b, err := l.bridge(n)
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	if b.MTU != n.MTU {
		if err := l.nl.SetLinkMTU(b, n.MTU); err != nil {
			return fmt.Errorf("set network %s: %w", n.Name, err)
		}
	}
	err = l.Inside(ctx, func() error { return l.equip(n, b, own) })
	if err == nil && !b.Up {
		err = l.nl.SetLinkUp(b)
	}
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	return nil
}

// equip gives a bridge what makes it the network's. The calling thread is in the
// namespace.
func (l *Links) equip(n vnic.Network, b rtnl.HostLink, own []netip.Prefix) error {
	if n.Kind == vnic.KindVLAN {
		bare := n
		bare.Subnets = nil // they are the pods', not the host's
		return errors.Join(quiet(bare), l.setTag(n, b))
	}
	err := errors.Join(l.forward(n.Gateways), quiet(n))
	if err == nil && !n.Unaddressed {
		err = l.nl.SetHostAddrs(b, slices.Concat(own, gateways(n))) // the kernel prefers the first as a source
	}
	return err
}

func (l *Links) checkExternal(n vnic.Network) error {
	b, err := l.nl.HostLink(n.Bridge)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("set network %s: no bridge %s here: %w: make it, or leave external out", n.Name, n.Bridge, vnic.ErrInvalid)
	case err == nil && b.Kind != kindBridge:
		return fmt.Errorf("set network %s: %s is no Linux bridge: %w", n.Name, n.Bridge, vnic.ErrInvalid)
	}
	return err
}

// bridge returns the network's bridge, and makes it when there is none.
func (l *Links) bridge(n vnic.Network) (rtnl.HostLink, error) {
	l.bridges.Lock()
	defer l.bridges.Unlock()
	if err := l.removeUnfinished(); err != nil {
		return rtnl.HostLink{}, err
	}
	b, err := l.nl.HostLink(n.Bridge)
	if errors.Is(err, fs.ErrNotExist) {
		err = l.nl.AddBridge(rtnl.Bridge{Name: n.Bridge, Alias: alias(n.Name), MTU: n.MTU, MAC: vnic.NewMAC()})
		if err == nil || errors.Is(err, fs.ErrExist) {
			b, err = l.nl.HostLink(n.Bridge)
		}
	}
	if err == nil && !ours(b, n) {
		err = fmt.Errorf("link %s is there and not brfuse's: %w: use it as an external bridge (--external), or give the network another name or bridge",
			b.Name, vnic.ErrConflict)
	}
	return b, err
}

// BridgeMAC returns the MAC of the network's bridge.
func (l *Links) BridgeMAC(n vnic.Network) (vnic.MAC, error) {
	b, err := l.nl.HostLink(n.Bridge)
	if err != nil {
		return vnic.MAC{}, fmt.Errorf("bridge of network %s: %w", n.Name, err)
	}
	return b.MAC, nil
}

// ours tells whether b was made for n. Nothing but the alias proves it: a bridge
// has it before it has its name.
func ours(b rtnl.HostLink, n vnic.Network) bool {
	return b.Kind == kindBridge && b.Alias == alias(n.Name)
}

// removeUnfinished removes bridges whose making was cut short.
func (l *Links) removeUnfinished() error {
	found, err := l.nl.HostLinks(rtnl.UnfinishedBridge)
	if err != nil {
		return err
	}
	for _, b := range found {
		if b.Kind != kindBridge || b.Up || b.Alias != "" && !strings.HasPrefix(b.Alias, alias("")) {
			continue
		}
		ports, err := l.nl.BridgePorts(b)
		if err != nil {
			return err
		}
		if len(ports) > 0 {
			continue
		}
		l.log.Info("remove a bridge whose making was cut short", "bridge", b.Name)
		if err := l.nl.DeleteHostLink(b); err != nil {
			return err
		}
	}
	return nil
}

// RemoveNetwork removes the network's bridge, and its tagged link, if brfuse made
// them. With other ports in it, or macvtaps of the network, that is a
// [vnic.ErrInUse]. What is gone is no error.
func (l *Links) RemoveNetwork(_ context.Context, n vnic.Network) error {
	if n.External {
		return nil
	}
	if err := l.unusedUplink(n); err != nil {
		return err
	}
	tag, err := l.findTag(n)
	if err != nil {
		return err
	}
	b, err := l.nl.HostLink(n.Bridge)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return err
	case !missing && ours(b, n):
		if err := l.unusedBridge(n, b, tag.Index); err != nil {
			return err
		}
		if err := l.nl.DeleteHostLink(b); err != nil {
			return err
		}
	}
	if tag.Index == 0 {
		return nil
	}
	return l.nl.DeleteHostLink(tag.HostLink)
}

// Unused returns a [vnic.ErrInUse] when the bridge that brfuse made for a network has
// ports, but for the one of that name.
func (l *Links) Unused(n vnic.Network, but string) error {
	b, err := l.nl.HostLink(n.Bridge)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !ours(b, n) {
		return err
	}
	p, err := l.nl.HostLink(but)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.unusedBridge(n, b, p.Index)
}

// unusedBridge returns a [vnic.ErrInUse] when a bridge has ports beside its tagged link.
func (l *Links) unusedBridge(n vnic.Network, b rtnl.HostLink, tag int) error {
	ports, err := l.nl.BridgePorts(b)
	if err != nil {
		return err
	}
	ports = slices.DeleteFunc(ports, func(p rtnl.HostLink) bool { return p.Index == tag })
	if len(ports) > 0 {
		return fmt.Errorf("remove network %s: bridge %s has %d ports, one of them %s: %w", n.Name, b.Name, len(ports), ports[0].Name, vnic.ErrInUse)
	}
	return nil
}

// gateways are the bridge's addresses.
func gateways(n vnic.Network) []netip.Prefix {
	addrs := make([]netip.Prefix, len(n.Subnets))
	for i, s := range n.Subnets {
		addrs[i] = netip.PrefixFrom(n.Gateways[i], s.Bits())
	}
	return addrs
}
