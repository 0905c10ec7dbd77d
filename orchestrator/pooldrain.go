package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// drain unplugs a vNIC of a pool and forgets it, unless an attachment has it. It
// goes on in the background when that fails.
func (o *Orchestrator) drain(ctx context.Context, id vnic.ID) error {
	unlock, err := o.vnics.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("unplug vnic %s: wait for another operation on it: %w", id, err)
	}
	defer unlock()
	p, err := o.readPooled(ctx, id)
	if err != nil || p == nil || p.State == taken {
		return err
	}
	return o.drainLocked(ctx, p)
}

// drainParked is drain for one that nobody has taken since it was read.
func (o *Orchestrator) drainParked(ctx context.Context, p pooled) error {
	unlock, err := o.vnics.Lock(ctx, p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	return o.drainLocked(ctx, &p)
}

// drainLocked is drain for who holds the vNIC's lock.
func (o *Orchestrator) drainLocked(ctx context.Context, p *pooled) error {
	err := o.shift(ctx, p, draining, nil)
	if errors.Is(err, errTaken) {
		return nil // by an attach, or another drained it
	}
	if err == nil {
		err = o.drainSteps(ctx, p)
	}
	if err != nil {
		o.drainSoon(p.ID)
		return fmt.Errorf("unplug vnic %s of pool %s: %w", p.ID, p.pool(), err)
	}
	o.log.Debug("unplugged a vnic of a pool", "pool", p.pool().String(), "vnic", string(p.ID))
	return nil
}

func (o *Orchestrator) drainSteps(ctx context.Context, p *pooled) error {
	if err := failpoint.Hit("drain.recorded"); err != nil {
		return err
	}
	if o.seen.usableAgent(p.VM) == nil {
		err := within(ctx, "release", o.cfg.Deadlines.Release, func(ctx context.Context) error {
			return o.cfg.Guest.Release(ctx, p.VM, p.move())
		})
		if err != nil {
			o.log.Debug("guest did not release a vnic of a pool", "vnic", string(p.ID), "error", err)
		}
	}
	err := within(ctx, "unplug", o.cfg.Deadlines.Unplug, func(ctx context.Context) error { return o.unplug(ctx, p.VM, p.ID) })
	if err := reached(err, "drain.unplugged"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error { return o.forget(tx, *p) })
	if err == nil {
		o.leaveSoon()
	}
	return err
}

// drainSoon drains in the background, until that works.
func (o *Orchestrator) drainSoon(id vnic.ID) {
	o.queue.keep("unplug vnic "+string(id), func(ctx context.Context) error { return o.drain(ctx, id) })
}
