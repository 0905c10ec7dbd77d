package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const kindBridge = "bridge"

// alias proves that a bridge is the network's.
func alias(network string) string { return "brfuse network " + network }

// SetNetwork makes sure that the network's bridge is there and as n says: its
// alias, MTU and gateway addresses, up, and the host forwards. Of an external
// bridge it only checks that there is one. A link of that name without the
// network's alias is a [vnic.ErrConflict]. n is complete.
func (l *Links) SetNetwork(ctx context.Context, n vnic.Network) error {
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
	err = l.Inside(ctx, func() error { return errors.Join(l.forward(n.Gateways), quiet(n)) })
	if err == nil {
		err = l.nl.SetHostAddrs(b, gateways(n))
	}
	if err == nil && !b.Up {
		err = l.nl.SetLinkUp(b)
	}
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	return nil
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

// RemoveNetwork removes the network's bridge if brfuse made it. With ports in
// it that is a [vnic.ErrInUse]. One that is gone is no error.
func (l *Links) RemoveNetwork(_ context.Context, n vnic.Network) error {
	if n.External {
		return nil
	}
	b, err := l.nl.HostLink(n.Bridge)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !ours(b, n) {
		return err
	}
	ports, err := l.nl.BridgePorts(b)
	if err != nil {
		return err
	}
	if len(ports) > 0 {
		return fmt.Errorf("remove network %s: bridge %s has %d ports, one of them %s: %w", n.Name, b.Name, len(ports), ports[0].Name, vnic.ErrInUse)
	}
	return l.nl.DeleteHostLink(b)
}

// gateways are the bridge's addresses.
func gateways(n vnic.Network) []netip.Prefix {
	addrs := make([]netip.Prefix, len(n.Subnets))
	for i, s := range n.Subnets {
		addrs[i] = netip.PrefixFrom(n.Gateways[i], s.Bits())
	}
	return addrs
}
