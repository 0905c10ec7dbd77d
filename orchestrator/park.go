package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// enterDetaching records that an attachment is being undone, and whether its vNIC
// is to be parked.
func (o *Orchestrator) enterDetaching(ctx context.Context, r *record) error {
	if r.Phase == vnic.PhaseDetaching {
		return nil
	}
	next := *r
	err := o.replace(ctx, r, &next, func(tx store.Tx) (err error) {
		next = *r
		next.Phase = vnic.PhaseDetaching
		next.Parking, err = o.mayPark(tx, &next, r.Phase)
		return err
	})
	if err != nil {
		return fmt.Errorf("record phase %s: %w", vnic.PhaseDetaching, err)
	}
	return nil
}

// mayPark says whether the vNIC of r, which has come as far as phase, is one for
// a pool that has room.
func (o *Orchestrator) mayPark(tx store.ReadTx, r *record, phase vnic.Phase) (bool, error) {
	pool, found, err := readPool(tx, r.pool())
	if err != nil || !found {
		return false, err
	}
	r.luck = poolHit // there is one
	switch {
	case phase != vnic.PhasePlugged && phase != vnic.PhaseMoved && phase != vnic.PhaseReady:
		return false, nil
	case r.spoiled || r.MTU != pool.MTU || !pool.serves(r.Request) || o.seen.usableAgent(r.Request.VM) != nil:
		return false, nil
	}
	n, err := r.pool().stock(tx, pool.High)
	return n < pool.High, err
}

// parkSteps parks the vNIC and deletes r, or returns false when it is to be
// unplugged instead: nobody knows that it is like new, or there is no room.
func (o *Orchestrator) parkSteps(ctx context.Context, r *record) (done bool, err error) {
	if err := o.retire(ctx, r); err != nil {
		o.logFor(r).Warn("vnic can't be parked, unplugging it", "error", err)
		r.LastError = err.Error()
		// An agent that is silent is not waited for again.
		r.silent = errors.Is(err, vnic.ErrAgentUnavailable) || errors.Is(err, context.DeadlineExceeded)
		r.Parking = false
		return false, nil
	}
	r.LastError = ""
	if done, err = o.erase(ctx, r); err != nil || !done {
		return false, err
	}
	return true, failpoint.Hit("park.parked")
}

// retire takes a vNIC from its network and then from its pod, so that it is as one
// that was never used. In this order: a link that is down still takes in frames, as
// long as there is somebody to send them, and its next tenant would get them.
func (o *Orchestrator) retire(ctx context.Context, r *record) error {
	err := step(ctx, r, "park", o.cfg.Deadlines.Park, func(ctx context.Context) error {
		return o.cfg.Host.Park(ctx, r.Request.VM, r.VNIC())
	})
	if err := reached(err, "park.host"); err != nil {
		return err
	}
	return reached(o.retrieveStep(ctx, r), "park.guest")
}

// retrieveStep has the guest take the vNIC from its pod and make it like new.
func (o *Orchestrator) retrieveStep(ctx context.Context, r *record) error {
	return step(ctx, r, "retrieve", o.cfg.Deadlines.Park, func(ctx context.Context) error {
		m := move(r.Attachment)
		m.Addresses, m.Routes = nil, nil
		session := o.seen.session(r.Request.VM)
		_, err := o.cfg.Guest.Retrieve(ctx, r.Request.VM, m)
		if err == nil {
			r.session = session
		}
		return err
	})
}

// parkRecord gives the vNIC of r to its pool, when that still has room.
func (o *Orchestrator) parkRecord(tx store.Tx, r *record) (bool, error) {
	may, err := o.mayPark(tx, r, vnic.PhaseReady)
	if err != nil || !may {
		return false, err
	}
	p := pooled{
		ID: r.VNIC(), VM: r.Request.VM, Network: r.Request.Network, State: taken, MAC: r.MAC, MTU: r.MTU,
		Queues: r.Request.Queues, Slot: r.Slot, GuestPCI: r.GuestPCI, Session: r.session,
	}
	if r.Device == "" { // it was plugged for this attachment
		if err := o.pool.FreeMAC(tx, r.owner(), r.MAC); err != nil {
			return false, err
		}
		if _, err := o.pool.TakeMAC(tx, p.owner(), r.MAC); err != nil {
			return false, err
		}
	}
	return true, p.put(tx, parked)
}

// dropVNIC forgets the vNIC of r, which is unplugged.
func (o *Orchestrator) dropVNIC(tx store.Tx, r *record) error {
	if r.Device == "" {
		return o.pool.FreeMAC(tx, r.owner(), r.MAC)
	}
	p := pooled{ID: r.Device, VM: r.Request.VM, Network: r.Request.Network, State: taken, MAC: r.MAC}
	return o.forget(tx, p)
}

// noteDetached has the pools make use of what a detach gave back.
func (o *Orchestrator) noteDetached(r *record) {
	if r.luck != noPool {
		o.pools.used(r.pool())
		o.tendLater(r.pool())
	}
	if r.Parking && r.session != o.seen.session(r.Request.VM) { // no event tells to look at it again
		o.reconcileSoon(r.Request.VM)
	}
	if !r.Parking { // a slot is free
		for _, k := range o.pools.failing(r.Request.VM) {
			o.tendSoon(k)
		}
	}
}
