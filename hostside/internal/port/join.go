package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Join makes a tap a port of a network's bridge, for the one station with that
// MAC, and sets it up. A macvtap is only set up. It may be repeated. A MAC that the
// bridge or another port of it has, or the uplink or another macvtap, is a
// [vnic.ErrAddressTaken].
func (l *Links) Join(_ context.Context, tap string, n vnic.Network, mac vnic.MAC) error {
	link, err := l.nl.HostLink(tap)
	if err != nil {
		return err
	}
	if n.Kind == vnic.KindMacvtap || link.Kind == kindMacvtap {
		return l.joinUplink(link, n, mac)
	}
	bridge, err := l.nl.HostLink(n.Bridge)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w: the bridge of network %s is gone; create the network again", err, vnic.ErrUnknownNetwork, n.Name)
	}
	if err != nil {
		return err
	}
	l.joins.Lock()
	err = l.join(link, bridge, mac)
	l.joins.Unlock()
	if err != nil {
		return err
	}
	if err = l.conn.Do(rtnl.SetLink(link.Index, ready(n))); errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return err
}

// ready is what lets a port's frames pass. Through one that is silent an overlay's
// bridge would not answer ARP requests for remote pods (br_arp_send in
// net/bridge/br_arp_nd_proxy.c).
func ready(n vnic.Network) rtnl.Change {
	c := rtnl.Change{Flags: unix.IFF_UP, Mask: unix.IFF_UP}
	if n.Kind == vnic.KindOverlay {
		c.Mask |= unix.IFF_NOARP
	}
	return c
}

// join sends all at once, as it nearly always goes. What doesn't go that way is
// done step by step, which tells why it can't be.
func (l *Links) join(link, bridge rtnl.HostLink, mac vnic.MAC) error {
	if link.Master == 0 && l.conn.Do(rtnl.JoinPort(link, bridge, mac, parked(link.Alias, false))...) == nil {
		return nil
	}
	return l.nl.JoinBridge(link, bridge, mac)
}

// Leave takes a tap from its bridge, or sets a macvtap down: from then on nothing
// comes in or goes out.
// A tap that is gone is no error.
func (l *Links) Leave(_ context.Context, id vnic.ID) error {
	link, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && link.Master == 0 && link.Kind != kindMacvtap {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Kind == kindMacvtap {
		return l.conn.Do(rtnl.SetDown(link.Index).Tolerate(unix.ENODEV))
	}
	leave := rtnl.Change{Free: true, Flags: unix.IFF_NOARP, Mask: unix.IFF_NOARP} // silent again; see ready
	return l.conn.Do(rtnl.SetLink(link.Index, leave).Tolerate(unix.ENODEV))
}

// Park takes a tap from its bridge, sets it down, drops the frames that wait in
// it, and takes back the limit of [Links.Shape]. Its alias says that it is parked. A
// tap that is gone is no error.
func (l *Links) Park(_ context.Context, id vnic.ID) error {
	link, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = l.conn.Do(append(rtnl.LeavePort(link, parked(link.Alias, true)), rtnl.ClearShape(link))...)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
