package port

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const (
	kindVLAN    = "vlan"
	tagPrefix   = "bfv-"
	maxLinkName = unix.IFNAMSIZ - 1
)

// tagName is the name of a network's tagged link: as the bridge's, from the network's name
// or a part of its hash.
func tagName(network string) string {
	if len(tagPrefix)+len(network) <= maxLinkName {
		return tagPrefix + network
	}
	sum := sha256.Sum256([]byte(network))
	return tagPrefix + hex.EncodeToString(sum[:5])
}

// uplink returns the link that a network of kind vlan or macvtap uses. That there is none
// is a [vnic.ErrInvalid].
func (l *Links) uplink(n vnic.Network) (rtnl.HostLink, error) {
	up, err := l.nl.HostLink(n.Uplink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return up, fmt.Errorf("no uplink %s here: %w: make it, and try again", n.Uplink, vnic.ErrInvalid)
	case err == nil && up.MTU < n.MTU:
		return up, fmt.Errorf("mtu %d is larger than %d of uplink %s: %w: give the network a smaller one, or the uplink a larger one",
			n.MTU, up.MTU, n.Uplink, vnic.ErrInvalid)
	}
	return up, err
}

// setTag makes sure that the network's tagged link is there, a port of its bridge, and up.
// It is silent as a tap is. Its port learns and floods: the outside is behind it. The
// calling thread is in the namespace.
func (l *Links) setTag(n vnic.Network, bridge rtnl.HostLink) error {
	up, err := l.uplink(n)
	if err != nil {
		return err
	}
	tag, err := l.tag(n, up)
	if err != nil {
		return err
	}
	if err := set("ipv6/conf/"+tag.Name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	change := rtnl.Change{Flags: unix.IFF_NOARP | unix.IFF_UP, Mask: unix.IFF_NOARP | unix.IFF_UP}
	if tag.Master != bridge.Index {
		change.Master = bridge.Index
	}
	return l.conn.Do(rtnl.SetupLink(tag.HostLink, n.MTU, alias(n.Name)), rtnl.SetLink(tag.Index, change))
}

// tag returns the network's tagged link, and makes it when there is none, or one of an
// uplink that has been made anew since.
func (l *Links) tag(n vnic.Network, up rtnl.HostLink) (rtnl.VLANLink, error) {
	have, err := l.findTag(n)
	switch {
	case err != nil:
		return have, err
	case have.Index != 0 && have.Lower == up.Index && have.Tag == n.VLAN:
		return have, nil
	case have.Index != 0:
		if err := l.nl.DeleteHostLink(have.HostLink); err != nil {
			return have, err
		}
	}
	err = l.conn.Do(rtnl.AddVLAN(rtnl.NewLink{Name: tagName(n.Name), MTU: n.MTU}, up.Index, n.VLAN))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return have, fmt.Errorf("%w: %w: this kernel lacks tagged links: load the module 8021q (CONFIG_VLAN_8021Q)", err, vnic.ErrUnsupported)
	case errors.Is(err, unix.EEXIST):
		return have, fmt.Errorf("vlan %d of uplink %s, or the name %s, is another link's: %w: remove that link, or use it by a bridge of your own (--external)",
			n.VLAN, up.Name, tagName(n.Name), vnic.ErrConflict)
	case err != nil:
		return have, err
	}
	return l.findTag(n)
}

// findTag returns the network's tagged link, or the zero value: one of its name with its
// alias, or one whose making was cut short before that.
func (l *Links) findTag(n vnic.Network) (rtnl.VLANLink, error) {
	all, err := l.nl.VLANLinks()
	i := slices.IndexFunc(all, func(t rtnl.VLANLink) bool {
		return t.Name == tagName(n.Name) && (t.Alias == alias(n.Name) || t.Alias == "" && t.Master == 0 && !t.Up)
	})
	if err != nil || i < 0 {
		return rtnl.VLANLink{}, err
	}
	return all[i], nil
}
