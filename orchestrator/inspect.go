package orchestrator

import (
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Find returns the attachment of a key, or [vnic.ErrNotFound].
func (o *Orchestrator) Find(ctx context.Context, k vnic.Key) (vnic.Attachment, error) {
	r, err := o.readKey(ctx, k)
	switch {
	case err != nil:
		return vnic.Attachment{}, fmt.Errorf("get attachment of %s: %w", describe(k), err)
	case r == nil:
		return vnic.Attachment{}, fmt.Errorf("get attachment of %s: %w", describe(k), vnic.ErrNotFound)
	}
	return r.Attachment, nil
}

// Inspect is Find that also compares the attachment with what is on the host. The
// error is [vnic.ErrDiffers] when it is not ready, its device or tap is gone, or
// the tap is not in its network's bridge. The guest is not asked.
func (o *Orchestrator) Inspect(ctx context.Context, k vnic.Key) (vnic.Attachment, error) {
	a, err := o.Find(ctx, k)
	if err != nil {
		return a, err
	}
	return a, wrap(o.inspect(ctx, a), "attachment %s of %s", a.ID, describe(k))
}

func (o *Orchestrator) inspect(ctx context.Context, a vnic.Attachment) error {
	if a.Phase != vnic.PhaseReady {
		return fmt.Errorf("it is not ready but %s: %w", a.Phase, vnic.ErrDiffers)
	}
	ports, err := o.ports(ctx, a.Request.VM)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ports, func(p vnic.Port) bool { return p.ID == a.VNIC() })
	switch {
	case i < 0 || !ports[i].Plug:
		return fmt.Errorf("the hypervisor has no device %s; detach and attach it anew: %w", a.VNIC().DeviceID(), vnic.ErrDiffers)
	case !ports[i].Tap:
		return fmt.Errorf("its tap %s is missing; detach and attach it anew: %w", a.VNIC().TapName(), vnic.ErrDiffers)
	case !ports[i].Bridged:
		return fmt.Errorf("its tap %s is not up in the bridge of network %s; `brfuse gc` repairs that: %w", a.VNIC().TapName(), a.Request.Network, vnic.ErrDiffers)
	}
	return nil
}

// Ready returns the error that an attachment of a VM to a network would fail with
// now: the VM or the network is unknown, the VM is gone, it has no free slot and
// nothing parked, a pool is exhausted, or the guest may ask for no more.
func (o *Orchestrator) Ready(ctx context.Context, vm, network string) error {
	return wrap(o.ready(ctx, vm, network), "attach to network %s", network)
}

func (o *Orchestrator) ready(ctx context.Context, vm, network string) error {
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		n, err := o.open(tx, vm, network)
		if err != nil {
			return err
		}
		if err := o.quota(tx, vm); err != nil {
			return err
		}
		return o.pool.Room(tx, n)
	})
	if err != nil {
		return err
	}
	if err := o.seen.usable(vm); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Query)
	defer cancel()
	free, total, err := o.cfg.Host.Free(ctx, vm)
	switch {
	case err != nil:
		return late(ctx, "ask host", o.cfg.Deadlines.Query, err)
	case free <= 0 && !o.evictable(ctx, vm):
		return &vnic.NoSlotError{VM: vm, Used: total - free, Total: total}
	}
	return nil
}

// evictable tells whether a parked vNIC of the VM can make room for an attachment,
// or become one.
func (o *Orchestrator) evictable(ctx context.Context, vm string) bool {
	list, err := o.idle(ctx, vm)
	return err == nil && slices.ContainsFunc(list, func(p pooled) bool { return p.State == parked })
}
