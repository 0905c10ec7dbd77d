package rig

import (
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Links of a pair's hypervisors, by the same names on both.
const (
	ownWire     = "ownwire"   // joins the bridges of the guests' own NICs
	fusedBridge = "fused0"    // carries fused pods
	fusedWire   = "fusedwire" // joins those
	overBridge  = "over0"     // carries fused pods whose packets are tunnelled
	overVXLAN   = "overvxlan" // joins those
)

const (
	overVNI      = 4100
	vxlanPort    = 4789
	vxlanHeaders = 50 // bytes that VXLAN over IPv4 adds to an Ethernet frame's payload
	overMTU      = vnic.DefaultMTU - vxlanHeaders
)

// join joins the hypervisors of a pair. The wire is a veth: it takes large segments
// unsplit, as one from a guest to another on the same hypervisor does.
func (r *Rig) join() error {
	if err := r.wire(ownWire); err != nil {
		return err
	}
	if err := r.wire(fusedWire); err != nil {
		return err
	}
	for i, n := range r.nodes {
		if err := n.enslave(ownWire, ownBridge); err != nil {
			return err
		}
		if _, err := n.bridge(fusedBridge, vnic.DefaultMTU); err != nil {
			return err
		}
		if err := n.enslave(fusedWire, fusedBridge); err != nil {
			return err
		}
		if err := n.overlay(r.nodes[1-i]); err != nil {
			return err
		}
	}
	return nil
}

// wire makes a veth with an end of that name in the namespace of each hypervisor.
func (r *Rig) wire(name string) error {
	a, b := r.nodes[0], r.nodes[1]
	return a.conn.Do(rtnl.AddVeth(rtnl.NewLink{Name: name}, rtnl.NewLink{Name: name, Netns: b.site.Net.NS().FD()}))
}

// overlay makes a bridge whose frames for the other hypervisor go through a tunnel.
func (n *node) overlay(other *node) error {
	lower, err := n.nl.HostLink(ownBridge)
	if err != nil {
		return err
	}
	err = n.conn.Do(rtnl.AddVXLAN(rtnl.NewLink{Name: overVXLAN, MTU: overMTU}, rtnl.Tunnel{
		VNI: overVNI, Lower: lower.Index, Local: n.hostAddr(), Remote: other.hostAddr(), Port: vxlanPort,
	}))
	if err != nil {
		return err
	}
	if _, err := n.bridge(overBridge, overMTU); err != nil {
		return err
	}
	return n.enslave(overVXLAN, overBridge)
}

// enslave makes a link a port of a bridge that learns who is behind it.
func (n *node) enslave(link, bridge string) error {
	if err := n.quiet(link); err != nil {
		return err
	}
	l, err := n.conn.Link(link)
	if err != nil {
		return err
	}
	b, err := n.conn.Link(bridge)
	if err != nil {
		return err
	}
	return n.conn.Do(rtnl.SetLink(l.Index, rtnl.Change{Master: b.Index, Flags: unix.IFF_UP, Mask: unix.IFF_UP}))
}
