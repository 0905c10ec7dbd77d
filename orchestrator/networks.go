package orchestrator

import (
	"cmp"
	"context"
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
	err = o.named(ctx, networkPrefix+n.Name, func() error { return o.createNetwork(ctx, n) })
	return n, wrap(err, "create network %s", n.Name)
}

func (o *Orchestrator) createNetwork(ctx context.Context, n vnic.Network) error {
	var fresh bool
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		fresh, err = addNetwork(tx, n)
		return err
	})
	if err != nil {
		return err
	}
	err = o.setNetwork(ctx, n)
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

// addNetwork stores a network and tells whether it is new.
func addNetwork(tx store.Tx, n vnic.Network) (fresh bool, err error) {
	nets, err := all[networkRecord](tx, networkPrefix)
	if err != nil {
		return false, err
	}
	for _, old := range nets {
		switch {
		case old.Name != n.Name:
			err = clash(old.Network, n)
		case old.Removing:
			err = fmt.Errorf("it is being removed; finish that by `brfuse network rm %s`: %w", n.Name, vnic.ErrConflict)
		default:
			return false, compareNetworks(old.Network, n)
		}
		if err != nil {
			return false, err
		}
	}
	if isWord(n.Name) {
		return false, fmt.Errorf("%q means something else to `brfuse vm add --guest-network`; choose another name: %w", n.Name, vnic.ErrInvalid)
	}
	return true, save(tx, networkPrefix+n.Name, networkRecord{Network: n})
}

// clash tells what two networks would share.
func clash(old, n vnic.Network) error {
	if old.Bridge == n.Bridge {
		return fmt.Errorf("bridge %s is that of network %s; choose another: %w", n.Bridge, old.Name, vnic.ErrInUse)
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
	switch {
	case !slices.Equal(old.Subnets, n.Subnets):
		what, a, b = "subnets", old.Subnets, n.Subnets
	case !slices.Equal(old.Gateways, n.Gateways):
		what, a, b = "gateways", old.Gateways, n.Gateways
	case old.Bridge != n.Bridge || old.External != n.External:
		what, a, b = "bridge", bridge(old), bridge(n)
	case old.MTU != n.MTU:
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
		n.Removing = true
		return save(tx, networkPrefix+name, n)
	})
	if err != nil {
		return err
	}
	if err := o.dropPools(ctx, func(k poolID) bool { return k.network == name }); err != nil {
		return err
	}
	hctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
	defer cancel()
	if err := o.cfg.Host.RemoveNetwork(hctx, n.Network); err != nil {
		return late(hctx, "host", o.cfg.Deadlines.Network, err)
	}
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return cmp.Or(tx.Delete(networkPrefix+name), o.pool.Forget(tx, name))
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
	return list, wrap(err, "list networks")
}

func (o *Orchestrator) setNetwork(ctx context.Context, n vnic.Network) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
	defer cancel()
	return late(ctx, "host", o.cfg.Deadlines.Network, o.cfg.Host.SetNetwork(ctx, n))
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
	return o.setNetwork(ctx, n.Network)
}
