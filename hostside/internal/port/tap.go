package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Tap is a tap that was just made.
type Tap struct {
	Name  string
	Files []*os.File // one for each queue
	Vhost []*os.File // as many, or none where the kernel has no vhost
}

// Close closes the descriptors. The tap goes when nobody else has any.
func (t Tap) Close() error {
	return errors.Join(rtnl.CloseFiles(t.Files), rtnl.CloseFiles(t.Vhost))
}

// OpenTap makes the tap of a vNIC: silent, down and in no bridge. When there is
// one already, the error is [fs.ErrExist].
func (l *Links) OpenTap(ctx context.Context, p vnic.Plug) (_ Tap, err error) {
	t := Tap{Name: p.ID.TapName()}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	err = l.Inside(ctx, func() error {
		files, err := rtnl.OpenTap(t.Name, p.Queues)
		if err != nil {
			return err
		}
		t.Files = files
		return set("ipv6/conf/"+t.Name+"/disable_ipv6", "1")
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w: load the kernel module tun", err, vnic.ErrUnsupported)
	}
	if err != nil {
		return Tap{}, err
	}
	link, err := l.nl.HostLink(t.Name)
	if err != nil {
		return Tap{}, err
	}
	if err := l.nl.SetLinkNoARP(link); err != nil {
		return Tap{}, err
	}
	if link.MTU != p.MTU {
		if err := l.nl.SetLinkMTU(link, p.MTU); err != nil {
			return Tap{}, err
		}
	}
	if err := l.nl.SetLinkAlias(link, tapAlias(p.VM, p.Network)); err != nil {
		return Tap{}, err
	}
	if t.Vhost, err = rtnl.OpenVhost(p.Queues); err != nil {
		return Tap{}, fmt.Errorf("open vhost for tap %s: %w", t.Name, err)
	}
	return t, nil
}

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
	err = l.nl.JoinBridge(link, bridge, mac)
	l.joins.Unlock()
	if err != nil {
		return err
	}
	return l.nl.SetLinkUp(link)
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

// AwaitGone returns when the tap is gone, or with ctx's error.
func (l *Links) AwaitGone(ctx context.Context, tap string) error { return l.gone.Wait(ctx, tap) }

// DeleteTap deletes a tap, whoever holds descriptors of it. One that is gone is
// no error.
func (l *Links) DeleteTap(_ context.Context, id vnic.ID) error {
	link, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.nl.DeleteHostLink(link)
}

// HasTap tells whether the vNIC's tap exists.
func (l *Links) HasTap(_ context.Context, id vnic.ID) (bool, error) {
	_, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (l *Links) tap(id vnic.ID) (rtnl.HostLink, error) {
	link, err := l.nl.HostLink(id.TapName())
	if err == nil && link.Kind != kindTap {
		err = fmt.Errorf("link %s is a %s and no tap of brfuse's: %w", link.Name, link.Kind, vnic.ErrConflict)
	}
	return link, err
}

const kindTap = "tun"
