package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// comingSuffix ends the name of a tap that takes another one's place once its VM
// has moved: with it the name is as long as Linux allows but for one character.
const comingSuffix = "m"

// comingName is the name of the tap that is to take the place of a vNIC's.
func comingName(id vnic.ID) string { return id.TapName() + comingSuffix }

// comingID returns the vNIC whose tap's place a tap of that name is to take.
func comingID(name string) (vnic.ID, bool) {
	rest, ok := strings.CutSuffix(name, comingSuffix)
	if !ok {
		return "", false
	}
	id, ok := vnic.IDFromName(rest)
	return id, ok && id.TapName() == rest
}

// OpenComing makes the tap that is to take the place of a vNIC's, as OpenTap does
// that, under a name of its own.
func (l *Links) OpenComing(ctx context.Context, p vnic.Plug) (Tap, error) {
	return l.openTap(ctx, p, comingName(p.ID))
}

// Come gives a tap that OpenComing made its place and its name: the tap that was
// there goes, whoever holds it. The tap is down and in no bridge. When there is no
// tap that is to come, Come has been called before, and nothing happens.
func (l *Links) Come(ctx context.Context, id vnic.ID) error {
	coming, err := l.nl.HostLink(comingName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = l.DeleteTap(ctx, id)
	}
	if err != nil {
		return err
	}
	return l.conn.Do(rtnl.SetLink(coming.Index, rtnl.Change{Name: id.TapName()}))
}

// Coming returns the vNICs of a VM, or of all when vm is empty, for which there are
// taps that are to come, and the VMs that their aliases tell.
func (l *Links) Coming(_ context.Context, vm string) (map[vnic.ID]string, error) {
	links, err := l.nl.HostLinks(vnic.Prefix)
	if err != nil {
		return nil, err
	}
	found := map[vnic.ID]string{}
	for _, link := range links {
		id, ok := comingID(link.Name)
		if !ok || link.Kind != kindTap {
			continue
		}
		if a, _ := ParseAlias(link.Alias); vm == "" || a.VM == vm {
			found[id] = a.VM
		}
	}
	return found, nil
}

// DeleteComing deletes a tap that was to come, whoever holds it. One that is gone is
// no error.
func (l *Links) DeleteComing(_ context.Context, id vnic.ID) error {
	link, err := l.nl.HostLink(comingName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tap that was to come: %w", err)
	}
	return l.nl.DeleteHostLink(link)
}

// AwaitComingGone returns when there is no tap any more that is to come for a vNIC,
// or with ctx's error.
func (l *Links) AwaitComingGone(ctx context.Context, id vnic.ID) error {
	return l.gone.Wait(ctx, comingName(id))
}
