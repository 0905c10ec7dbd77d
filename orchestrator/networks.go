package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// CreateNetwork makes a network and returns it with its defaults filled in. To
// create the same one again is no error, and has the host half make sure of it;
// then all VMs are reconciled, so that taps find a bridge that was made anew.
// One that exists and differs is a [vnic.ErrConflict]; a subnet or bridge that
// belongs to another network is an [vnic.ErrInUse].
func (o *Orchestrator) CreateNetwork(ctx context.Context, n vnic.Network) (vnic.Network, error) {
	n, err := n.Complete()
	if err != nil {
		return n, fmt.Errorf("create %w", err)
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return n, fmt.Errorf("create network %s: %w", n.Name, err)
	}
	defer done()
	err = o.named(ctx, networkPrefix+n.Name, func() (err error) {
		n, err = o.createNetwork(ctx, n)
		return err
	})
	return n, wrap(err, "create network %s", n.Name)
}

// createNetwork returns the network with what the store chose for it.
func (o *Orchestrator) createNetwork(ctx context.Context, want vnic.Network) (vnic.Network, error) {
	var n vnic.Network
	var fresh bool
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		n, fresh, err = o.addNetwork(tx, want)
		return err
	})
	if err != nil {
		return n, err
	}
	return n, o.makeNetwork(ctx, n, fresh)
}

// makeNetwork has the host half make a network that was stored.
func (o *Orchestrator) makeNetwork(ctx context.Context, n vnic.Network, fresh bool) error {
	if o.cfg.Cluster != nil {
		return o.makeHere(ctx, n.Name, fresh)
	}
	err := o.setNetwork(ctx, n)
	switch {
	case !fresh && err == nil:
		return o.reconcileAllSoon(ctx)
	case !fresh || err == nil:
		return err
	}
	if rerr := o.removeNetwork(context.WithoutCancel(ctx), n.Name); rerr != nil {
		return fmt.Errorf("%w; undo: %w", err, rerr)
	}
	return err
}

// makeHere is makeNetwork for one of several hypervisors: a network is made where a vNIC
// of it comes, and only made sure of here.
func (o *Orchestrator) makeHere(ctx context.Context, name string, fresh bool) error {
	if fresh {
		return nil
	}
	here := false
	err := o.named(ctx, herePrefix+name, func() error {
		if here = o.isUp(name); here {
			return o.bringUp(ctx, name)
		}
		return nil
	})
	if err != nil || !here {
		return err
	}
	return o.reconcileAllSoon(ctx)
}

// addNetwork stores a network and tells whether it is new. It returns it as stored.
func (o *Orchestrator) addNetwork(tx store.Tx, n vnic.Network) (_ vnic.Network, fresh bool, err error) {
	nets, err := all[networkRecord](tx, networkPrefix)
	if err != nil {
		return n, false, err
	}
	for _, old := range nets {
		switch {
		case old.Name != n.Name:
			err = clash(old.Network, n)
		case old.Removing:
			err = fmt.Errorf("it is being removed; finish that by `brfuse network rm %s`: %w", n.Name, vnic.ErrConflict)
		default:
			return old.WithKind(), false, compareNetworks(old.Network, n)
		}
		if err != nil {
			return n, false, err
		}
	}
	if isWord(n.Name) {
		return n, false, fmt.Errorf("%q means something else to `brfuse vm add --guest-network`; choose another name: %w", n.Name, vnic.ErrInvalid)
	}
	if n, err = o.fit(tx, n); err != nil { // what is there keeps what was chosen for it
		return n, false, err
	}
	if n.Kind == vnic.KindOverlay {
		if n, err = complement(tx, n, nets); err != nil {
			return n, false, err
		}
	}
	return n, true, save(tx, networkPrefix+n.Name, networkRecord{Network: n})
}

// clash tells what two networks would share.
func clash(old, n vnic.Network) error {
	switch {
	case n.Bridge != "" && old.Bridge == n.Bridge:
		return fmt.Errorf("bridge %s is that of network %s; choose another: %w", n.Bridge, old.Name, vnic.ErrInUse)
	case n.VNI != 0 && old.VNI == n.VNI:
		return fmt.Errorf("vni %d is that of network %s; choose another: %w", n.VNI, old.Name, vnic.ErrInUse)
	case n.Kind == vnic.KindVLAN && old.Kind == vnic.KindVLAN && old.Uplink == n.Uplink && old.VLAN == n.VLAN:
		return fmt.Errorf("vlan %d of uplink %s is that of network %s; choose another: %w", n.VLAN, n.Uplink, old.Name, vnic.ErrInUse)
	}
	for _, p := range n.Subnets {
		for _, q := range old.Subnets {
			if p.Overlaps(q) {
				return fmt.Errorf("subnet %s overlaps %s of network %s; choose another: %w", p, q, old.Name, vnic.ErrInUse)
			}
		}
	}
	return nil
}

func compareNetworks(old, n vnic.Network) error {
	var what string
	var a, b any
	old = old.WithKind()
	switch {
	case old.Kind != n.Kind:
		what, a, b = "type", old.Kind, n.Kind
	case n.VNI != 0 && old.VNI != n.VNI: // without one, the network keeps its own
		what, a, b = "vni", old.VNI, n.VNI
	case old.Uplink != n.Uplink:
		what, a, b = "uplink", old.Uplink, n.Uplink
	case old.VLAN != n.VLAN:
		what, a, b = "vlan", old.VLAN, n.VLAN
	case old.Unaddressed != n.Unaddressed:
		what, a, b = "addresses", onOff(!old.Unaddressed), onOff(!n.Unaddressed)
	case !slices.Equal(old.Subnets, n.Subnets):
		what, a, b = "subnets", old.Subnets, n.Subnets
	case !slices.Equal(old.Gateways, n.Gateways):
		what, a, b = "gateways", old.Gateways, n.Gateways
	case old.Bridge != n.Bridge || old.External != n.External:
		what, a, b = "bridge", bridge(old), bridge(n)
	case old.MTU != n.MTU && n.MTU != 0: // an overlay's default is chosen once
		what, a, b = "mtu", old.MTU, n.MTU
	case old.Masquerade != n.Masquerade:
		what, a, b = "masquerading", onOff(old.Masquerade), onOff(n.Masquerade)
	default:
		return nil
	}
	return fmt.Errorf("its %s: %v, not %v; remove it first by `brfuse network rm %s`: %w", what, a, b, n.Name, vnic.ErrConflict)
}

func bridge(n vnic.Network) string {
	if n.External {
		return n.Bridge + " (existing)"
	}
	return n.Bridge
}

// RemoveNetwork removes a network. While it has attachments or reserved addresses
// the error is [vnic.ErrInUse]; when there is no such network, [vnic.ErrUnknownNetwork].
func (o *Orchestrator) RemoveNetwork(ctx context.Context, name string) error {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("remove network %s: %w", name, err)
	}
	defer done()
	err = o.named(ctx, networkPrefix+name, func() error { return o.removeNetwork(ctx, name) })
	return wrap(err, "remove network %s", name)
}

// removeNetwork closes the network to new attachments, has the host remove it,
// and forgets it: so a failure in between leaves a record to begin anew from.
func (o *Orchestrator) removeNetwork(ctx context.Context, name string) error {
	var n networkRecord
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		n = networkRecord{}
		rev, err := load(tx, networkPrefix+name, &n)
		if err != nil {
			return err
		}
		if rev == 0 {
			return fmt.Errorf("there is none; see `brfuse network list`: %w", vnic.ErrUnknownNetwork)
		}
		if err := unused(tx, "network", func(a vnic.Attachment) bool { return a.Request.Network == name }); err != nil {
			return err
		}
		if err := o.unreserved(tx, name); err != nil {
			return err
		}
		if err := cmp.Or(o.unusedElsewhere(tx, name), unserved(tx, name)); err != nil {
			return err
		}
		n.Removing = true
		return save(tx, networkPrefix+name, n)
	})
	if err != nil {
		return err
	}
	if err := o.dropPools(ctx, func(k poolID) bool { return k.network == name }); err != nil {
		return err
	}
	if err := o.takeDown(ctx, n.Network); err != nil {
		return err
	}
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return cmp.Or(tx.Delete(networkPrefix+name), o.pool.Forget(tx, name), o.pool.ForgetShared(tx, name))
	})
	return err
}

// unused returns [vnic.ErrInUse] with the number of attachments that match.
func unused(tx store.ReadTx, what string, match func(vnic.Attachment) bool) error {
	list, err := all[vnic.Attachment](tx, attachmentPrefix)
	if err != nil {
		return err
	}
	n, first := 0, vnic.Attachment{}
	for _, a := range list {
		if match(a) {
			if n == 0 {
				first = a
			}
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("the %s has 1 attachment, %s of pod %s; detach it first: %w", what, first.ID, first.Request.Pod, vnic.ErrInUse)
	}
	return fmt.Errorf("the %s has %d attachments, such as %s of pod %s; detach them first: %w",
		what, n, first.ID, first.Request.Pod, vnic.ErrInUse)
}

// Networks returns all networks in the order of their names.
func (o *Orchestrator) Networks(ctx context.Context) ([]vnic.Network, error) {
	var list []vnic.Network
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = all[vnic.Network](tx, networkPrefix)
		return err
	})
	for i := range list {
		list[i] = list[i].WithKind()
	}
	return list, wrap(err, "list networks")
}

func (o *Orchestrator) setNetwork(ctx context.Context, n vnic.Network) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
	defer cancel()
	if n.Kind == vnic.KindOverlay {
		return o.setOverlay(ctx, n)
	}
	if err := o.cfg.Host.SetNetwork(ctx, n); err != nil {
		return late(ctx, "host", o.cfg.Deadlines.Network, err)
	}
	return o.fabric.Use(ctx, n)
}

// setOverlay is setNetwork for an overlay, where this hypervisor has an address of its
// own.
func (o *Orchestrator) setOverlay(ctx context.Context, n vnic.Network) error {
	if err := o.carries(n); err != nil {
		return err
	}
	if fits := o.cfg.Cluster.Self.MTU; fits > 0 && fits < n.MTU {
		o.log.Warn("the largest packets of a network don't fit into this hypervisor's underlay; make a network anew, whose MTU fits all",
			"network", n.Name, "mtu", n.MTU, "fits", fits)
	}
	own, err := o.takeStand(ctx, n)
	switch {
	case errors.Is(err, vnic.ErrPoolExhausted): // pods go first
		o.log.Warn("services don't lead from here to pods elsewhere, and this hypervisor doesn't reach them", "network", n.Name, "error", err)
		own = stand{}
	case err != nil:
		return err
	}
	o.cfg.Cluster.Overlay.SetHostAddresses(n.Name, own.Leases)
	if err := o.cfg.Host.SetNetwork(ctx, n); err != nil {
		return late(ctx, "host", o.cfg.Deadlines.Network, err)
	}
	if own.ID != "" {
		if err := o.announceStand(ctx, n, own); err != nil {
			return err
		}
	}
	return o.fabric.Use(ctx, n)
}

// takeDown removes a network from this hypervisor that has no vNIC any more.
func (o *Orchestrator) takeDown(ctx context.Context, n vnic.Network) error {
	if o.cfg.Cluster != nil {
		return o.named(ctx, herePrefix+n.Name, func() error { return o.leaveNetwork(ctx, n.Name) })
	}
	o.fabric.Drop(n.Name)
	return o.removeFromHost(ctx, n)
}

// restoreNetwork tells the host half of a network after a restart, or ends a
// removal that had begun.
func (o *Orchestrator) restoreNetwork(ctx context.Context, name string) error {
	return o.named(ctx, networkPrefix+name, func() error { return o.restoreNetworkLocked(ctx, name) })
}

func (o *Orchestrator) restoreNetworkLocked(ctx context.Context, name string) error {
	var n networkRecord
	var rev int64
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		rev, err = load(tx, networkPrefix+name, &n)
		return err
	})
	switch {
	case err != nil || rev == 0:
		return err
	case n.Removing:
		return o.removeNetwork(ctx, name)
	}
	if o.cfg.Cluster != nil { // it is removed from here after the last vNIC
		return o.named(ctx, herePrefix+name, func() error { return o.bringUp(ctx, name) })
	}
	return o.setNetwork(ctx, n.Network)
}
