package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Overlay is the part of the host half that joins an overlay's bridges.
type Overlay interface {
	fabric.Overlay
	// SetHostAddresses says which addresses this hypervisor has of its own in an
	// overlay, beside the gateways, which all have. SetNetwork gives them to the bridge.
	SetHostAddresses(network string, addrs []netip.Prefix)
	// BridgeMAC returns the MAC by which the hypervisor is reached in a network.
	BridgeMAC(ctx context.Context, network string) (vnic.MAC, error)
}

// selfPrefix begins the keys of where this hypervisor stands in networks; NETWORK: a stand.
const selfPrefix = "self/"

// stand is what a hypervisor has of its own in an overlay. From there it reaches pods
// on others, whose answers to the gateway's address would not leave theirs.
type stand struct {
	ID     vnic.ID        `json:"id"`
	Leases []netip.Prefix `json:"leases"`
}

// standOwner is in whose name a hypervisor's own addresses are leased. No VM has such a name.
func standOwner(id vnic.ID, hypervisor, network string) ipam.Owner {
	return ipam.Owner{ID: id, Key: vnic.Key{VM: "-", Pod: "hypervisor-" + hypervisor, Interface: network}}
}

// errNoUnderlay is why this hypervisor is in no overlay.
var errNoUnderlay = fmt.Errorf("this hypervisor has no underlay for overlays; start brfused with --underlay ADDRESS: %w", vnic.ErrUnsupported)

// carries says whether this hypervisor can be in a network.
func (o *Orchestrator) carries(n vnic.Network) error {
	switch {
	case n.Kind != vnic.KindOverlay:
		return nil
	case o.cfg.Cluster == nil:
		return errNoCluster
	case !o.cfg.Cluster.Self.Underlay.IsValid():
		return errNoUnderlay
	}
	return nil
}

// fits says whether the addresses are of a network: one of that name may have been removed,
// and this one made, while nothing ran here.
func (s stand) fits(n vnic.Network) bool {
	if len(s.Leases) != len(n.Subnets) {
		return false
	}
	return !slices.ContainsFunc(s.Leases, func(l netip.Prefix) bool {
		subnet, ok := n.Subnet(l.Addr())
		return !ok || subnet.Bits() != l.Bits()
	})
}

// takeStand gives this hypervisor addresses of its own in an overlay, unless it has
// them. A network that has none left does without.
func (o *Orchestrator) takeStand(ctx context.Context, n vnic.Network) (stand, error) {
	var s stand
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		s = stand{}
		rev, err := load(tx, selfPrefix+n.Name, &s)
		if err != nil || rev != 0 && s.fits(n) {
			return err
		}
		if err := o.joined(tx); err != nil {
			return err
		}
		if rev != 0 {
			if err := o.eraseStand(tx, n.Name, s); err != nil {
				return err
			}
			s = stand{}
		}
		for used := true; used; {
			s.ID = vnic.NewID()
			if used, err = o.usedID(tx, s.ID); err != nil {
				return err
			}
		}
		leases, err := o.pool.Take(tx, n, standOwner(s.ID, o.Hypervisor(), n.Name), nil)
		if err != nil {
			return err
		}
		for _, l := range leases {
			s.Leases = append(s.Leases, l.Prefix)
		}
		return save(tx, selfPrefix+n.Name, s)
	})
	return s, wrap(err, "give this hypervisor an address of its own")
}

// announceStand tells the others by which MAC this hypervisor is reached in an overlay.
func (o *Orchestrator) announceStand(ctx context.Context, n vnic.Network, s stand) error {
	mac, err := o.cfg.Cluster.Overlay.BridgeMAC(ctx, n.Name)
	if err != nil {
		return err
	}
	e := vnic.Endpoint{ID: s.ID, Network: n.Name, Hypervisor: o.Hypervisor(), Underlay: o.cfg.Cluster.Self.Underlay, MAC: mac}
	for _, l := range s.Leases {
		e.Addresses = append(e.Addresses, l.Addr())
	}
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var old vnic.Endpoint
		if rev, err := load(tx, fabric.EndpointKey(n.Name, s.ID), &old); err != nil || rev != 0 && old.Equal(e) {
			return err
		}
		return fabric.PutEndpoint(tx, e)
	})
	return wrap(err, "tell the others of this hypervisor")
}

// dropStand gives back what takeStand took.
func (o *Orchestrator) dropStand(ctx context.Context, network string) error {
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var s stand
		rev, err := load(tx, selfPrefix+network, &s)
		if err != nil || rev == 0 {
			return err
		}
		return o.eraseStand(tx, network, s)
	})
	o.cfg.Cluster.Overlay.SetHostAddresses(network, nil)
	return wrap(err, "give back this hypervisor's own address")
}

func (o *Orchestrator) eraseStand(tx store.Tx, network string, s stand) error {
	return cmp.Or(tx.Delete(selfPrefix+network), tx.Delete(fabric.EndpointKey(network, s.ID)), o.pool.Free(tx, standOwner(s.ID, o.Hypervisor(), network)))
}

// isStand tells an endpoint that is a hypervisor's own.
func isStand(e vnic.Endpoint) bool { return e.Pod == "" }

// onlyStands says whether a network has no endpoint but hypervisors' own, and else
// returns one that is a pod's.
func onlyStands(tx store.ReadTx, network string) (e vnic.Endpoint, only bool, err error) {
	list, err := all[vnic.Endpoint](tx, fabric.EndpointPrefix+network+"/")
	if i := slices.IndexFunc(list, func(e vnic.Endpoint) bool { return !isStand(e) }); i >= 0 {
		return list[i], false, err
	}
	return e, true, err
}
