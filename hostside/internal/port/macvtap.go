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

const kindMacvtap = "macvtap"

// IsDirect tells whether a link is a macvtap, which is in no bridge.
func IsDirect(l rtnl.Link) bool { return l.Kind == kindMacvtap }

// checkMacvtap tells whether vNICs can be macvtaps of the network's uplink.
func (l *Links) checkMacvtap(n vnic.Network) error {
	up, err := l.uplink(n)
	if err == nil && up.Master != 0 {
		err = fmt.Errorf("uplink %s is a port of a bridge or bond, which takes its frames: %w: use that as an existing bridge (--external), or as the uplink",
			up.Name, vnic.ErrInvalid)
	}
	if err == nil {
		err = noMacvtap(l.conn.Do(rtnl.ProbeKind(kindMacvtap)))
	}
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	return nil
}

func noMacvtap(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w: this kernel lacks macvtaps: load the module macvtap (CONFIG_MACVTAP)", err, vnic.ErrUnsupported)
	}
	return err
}

// OpenMacvtap makes the macvtap of a vNIC: silent and down, with the vNIC's MAC. It
// receives all groups, since nobody tells it those that the guest is in. When there is one
// already, the error is [fs.ErrExist].
func (l *Links) OpenMacvtap(ctx context.Context, p vnic.Plug, n vnic.Network) (_ Tap, err error) {
	t := Tap{Name: p.ID.TapName()}
	up, err := l.uplink(n)
	if err != nil {
		return t, err
	}
	err = noMacvtap(l.conn.Do(rtnl.AddMacvtap(rtnl.NewLink{Name: t.Name, MAC: p.MAC, MTU: p.MTU}, up.Index)))
	switch {
	case errors.Is(err, unix.EEXIST):
		return t, fmt.Errorf("%w: %w", err, fs.ErrExist)
	case errors.Is(err, unix.EBUSY):
		return t, fmt.Errorf("%w: uplink %s has another user, such as a bridge: %w", err, up.Name, vnic.ErrConflict)
	case err != nil:
		return t, err
	}
	link, err := l.nl.HostLink(t.Name)
	if err != nil {
		return t, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close(), l.nl.DeleteHostLink(link))
		}
	}()
	err = l.Inside(ctx, func() (err error) {
		if err := set("ipv6/conf/"+t.Name+"/disable_ipv6", "1"); err != nil {
			return err
		}
		t.Files, err = rtnl.OpenMacvtap(link, p.Queues)
		return err
	})
	if err == nil {
		err = l.conn.Do(rtnl.SetupLink(link, p.MTU, aliasOf(p).String()), rtnl.SetAllMulticast(link.Index))
	}
	if err == nil {
		t.Vhost, err = rtnl.OpenVhost(p.Queues)
	}
	return t, err
}

// joinUplink sets a macvtap of the network's uplink up.
func (l *Links) joinUplink(link rtnl.HostLink, n vnic.Network, mac vnic.MAC) error {
	if n.Kind != vnic.KindMacvtap || link.Kind != kindMacvtap {
		return fmt.Errorf("link %s is a %s, and network %s is of kind %s: %w: attach the pod anew", link.Name, link.Kind, n.Name, n.Kind, vnic.ErrNotFound)
	}
	if link.MAC != mac {
		return fmt.Errorf("macvtap %s has mac %s, not %s: %w: attach the pod anew", link.Name, link.MAC, mac, vnic.ErrNotFound)
	}
	change := rtnl.Change{Alias: parked(link.Alias, false), Flags: unix.IFF_UP, Mask: unix.IFF_UP}
	err := l.conn.Do(rtnl.SetLink(link.Index, change))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &vnic.TakenError{What: "mac " + mac.String(), Why: "is that of uplink " + n.Uplink + " or of another link on it; choose another", Err: vnic.ErrAddressTaken}
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return err
}

// unusedUplink returns a [vnic.ErrInUse] when there are macvtaps of the network.
func (l *Links) unusedUplink(n vnic.Network) error {
	links, err := l.nl.HostLinks(vnic.Prefix)
	if err != nil {
		return err
	}
	for _, link := range links {
		if a, ok := ParseAlias(link.Alias); ok && link.Kind == kindMacvtap && a.Network == n.Name {
			return fmt.Errorf("remove network %s: macvtap %s is one of it: %w", n.Name, link.Name, vnic.ErrInUse)
		}
	}
	return nil
}
