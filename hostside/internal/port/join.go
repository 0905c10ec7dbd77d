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
// MAC, and sets it up. It may be repeated. A MAC that the bridge or another port
// of it has is a [vnic.ErrAddressTaken].
func (l *Links) Join(_ context.Context, tap string, n vnic.Network, mac vnic.MAC) error {
	link, err := l.nl.HostLink(tap)
	if err != nil {
		return err
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
	if err = l.conn.Do(rtnl.SetUp(link.Index)); errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return err
}

// join sends all at once, as it nearly always goes. What doesn't go that way is
// done step by step, which tells why it can't be.
func (l *Links) join(link, bridge rtnl.HostLink, mac vnic.MAC) error {
	if link.Master == 0 && l.conn.Do(rtnl.JoinPort(link, bridge, mac, parked(link.Alias, false))...) == nil {
		return nil
	}
	return l.nl.JoinBridge(link, bridge, mac)
}

// Leave takes a tap from its bridge: from then on nothing comes in or goes out.
// A tap that is gone is no error.
func (l *Links) Leave(_ context.Context, id vnic.ID) error {
	link, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && link.Master == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return l.nl.LeaveBridge(link)
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
