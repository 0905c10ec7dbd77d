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

// Persist has the tap stay when its descriptors are closed, and closes them, for a
// user who opens it by name. [Links.DeleteTap] removes it. It may be repeated.
func (t *Tap) Persist(owner int) error {
	if len(t.Files) == 0 {
		return nil
	}
	if err := rtnl.PersistTap(t.Files[0], owner); err != nil {
		return fmt.Errorf("tap %s: %w", t.Name, err)
	}
	err := t.Close()
	t.Files, t.Vhost = nil, nil
	return err
}

// OpenTap makes the tap of a vNIC: silent, down and in no bridge. When there is
// one already, the error is [fs.ErrExist].
func (l *Links) OpenTap(ctx context.Context, p vnic.Plug) (Tap, error) {
	return l.openTap(ctx, p, p.ID.TapName())
}

// openTap makes the tap of a vNIC under that name.
func (l *Links) openTap(ctx context.Context, p vnic.Plug, name string) (_ Tap, err error) {
	t := Tap{Name: name}
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
	if err := l.conn.Do(rtnl.SetupLink(link, p.MTU, aliasOf(p).String())); err != nil {
		return Tap{}, err
	}
	if t.Vhost, err = rtnl.OpenVhost(p.Queues); err != nil {
		return Tap{}, fmt.Errorf("open vhost for tap %s: %w", t.Name, err)
	}
	return t, nil
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
	if err == nil && !isTap(link) {
		err = fmt.Errorf("link %s is a %s and no tap of brfuse's: %w", link.Name, link.Kind, vnic.ErrConflict)
	}
	return link, err
}

const kindTap = "tun"

// isTap tells whether a link may be a vNIC's.
func isTap(link rtnl.HostLink) bool { return link.Kind == kindTap || link.Kind == kindMacvtap }
