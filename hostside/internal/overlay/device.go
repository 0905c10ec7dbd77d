package overlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// portFlags are those of the VXLAN link at its bridge.
var portFlags = rtnl.PortFlags{NeighSuppress: true}

// ensure makes the network's VXLAN link as it should be. fresh says that it has been made
// anew or has come to its bridge, and lacks entries. The caller holds the network's work.
func (o *Overlay) ensure(n *network) (fresh bool, err error) {
	bridge, err := o.conn.Link(n.Bridge)
	if err != nil {
		return false, errNoBridge(n.Network, err)
	}
	if bridge.Kind != "bridge" {
		return false, fmt.Errorf("link %s is no bridge: %w", bridge.Name, vnic.ErrInvalid)
	}
	t, fresh, err := o.link(n)
	if err != nil {
		return false, err
	}
	o.place(n, t.Index, bridge.Index)
	return fresh || t.Master != bridge.Index, o.conn.Do(settings(n, t, bridge.Index)...)
}

// link returns the network's VXLAN link, and makes it when there is none that will do.
func (o *Overlay) link(n *network) (t rtnl.Tunneler, fresh bool, err error) {
	want := rtnl.VXLAN{VNI: n.VNI, Port: o.cfg.Port, Local: o.cfg.Local, TTL: ttl}
	name := linkName(n.VNI)
	get := func() error { return o.conn.Do(rtnl.GetTunneler(&t, name)) }
	err = get()
	switch {
	case err == nil && t.Kind != kindVXLAN:
		return t, false, fmt.Errorf("link %s is a %s and not brfuse's: %w: rename it", name, t.Kind, vnic.ErrConflict)
	case err == nil && t.VXLAN == want:
		return t, false, nil
	case err == nil: // what differs can't be changed, most of it
		o.cfg.Log.Warn("make a vxlan link anew that is set otherwise than it should be", "link", name, "network", n.Name)
		err = o.conn.Do(rtnl.DelLink(t.Index))
	case errors.Is(err, unix.ENODEV):
		err = nil
	}
	if err == nil {
		err = o.conn.Do(rtnl.AddOverlay(rtnl.NewLink{Name: name, MTU: n.MTU}, want))
	}
	if errors.Is(err, unix.EEXIST) {
		return t, false, fmt.Errorf("%w: vni %d of port %d is %s's: %w: delete that, or choose another vni", err, n.VNI, o.cfg.Port, o.holder(want), vnic.ErrConflict)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w: load the kernel module vxlan", err, vnic.ErrUnsupported)
	}
	if err == nil {
		err = get()
	}
	return t, true, err
}

// holder says which VXLAN link keeps another one from being made.
func (o *Overlay) holder(v rtnl.VXLAN) string {
	var found []rtnl.Tunneler
	if o.conn.Do(rtnl.GetTunnelers(&found)) == nil {
		for _, t := range found {
			if t.VNI == v.VNI && t.Port == v.Port {
				return "link " + t.Name
			}
		}
	}
	return "a link that was moved to another namespace"
}

// settings are the requests that set a VXLAN link right. The flags of the port are set
// before it is up, so that nothing is flooded or learned in between.
func settings(n *network, t rtnl.Tunneler, bridge int) []rtnl.Request {
	var c rtnl.Change
	alias := aliasPrefix + n.Name
	if t.MTU != n.MTU {
		c.MTU = n.MTU
	}
	if t.Alias != alias {
		c.Alias = alias
	}
	if t.Master != bridge {
		c.Master = bridge
	}
	var reqs []rtnl.Request
	if c != (rtnl.Change{}) {
		reqs = append(reqs, rtnl.SetLink(t.Index, c))
	}
	if t.Master != bridge || t.AtBridge != portFlags {
		reqs = append(reqs, rtnl.SetPort(t.Index, portFlags))
	}
	if !t.Up {
		// A port needs no address of its own.
		reqs = append(reqs, rtnl.NoAutoAddress(t.Index).Tolerate(unix.EAFNOSUPPORT), rtnl.SetUp(t.Index))
	}
	return reqs
}
