package orchestrator

import (
	"context"
	"errors"

	"github.com/brfuse/brfuse/vnic"
)

// settlePooled makes a vNIC that no attachment has parked and like new, or gone.
// One that was being plugged or unplugged, and nobody is at it any more, was left
// by a crash.
func (o *Orchestrator) settlePooled(ctx context.Context, old pooled, t truth) error {
	unlock, err := o.vnics.Lock(ctx, old.ID)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := o.readPooled(ctx, old.ID)
	switch {
	case err != nil || p == nil || p.State == taken:
		return err
	case p.State == parked && p.rev != old.rev:
		return nil // it was parked after the halves were asked
	case p.State == parked && o.seen.usable(p.VM) == nil && t.whole(*p):
		return o.refresh(ctx, p, t)
	}
	o.log.Info("vnic of a pool is not as it should be, unplugging it", "pool", p.pool().String(), "vnic", string(p.ID),
		"state", string(p.State), "device", t.ports[p.ID].Plug, "tap", t.ports[p.ID].Tap, "netns", t.nics[p.MAC].Netns)
	return o.drainLocked(ctx, p)
}

// whole says whether a parked vNIC is there, and in the guest's first namespace.
func (t truth) whole(p pooled) bool {
	if port := t.ports[p.ID]; !port.Plug || !port.Tap {
		return false
	}
	nic, there := t.nics[p.MAC]
	return !t.guest || there && nic.Netns == ""
}

// refresh has a parked vNIC be parked on both sides again: an agent that was
// restarted has forgotten it, and anybody may have touched it. Nobody takes it
// meanwhile.
func (o *Orchestrator) refresh(ctx context.Context, p *pooled, t truth) error {
	bridged := t.ports[p.ID].Bridged
	if !t.guest && !bridged {
		return nil
	}
	if err := o.shift(ctx, p, filling, nil); err != nil {
		if errors.Is(err, errTaken) {
			return nil
		}
		return err
	}
	err := o.refreshSteps(ctx, p, t.guest, bridged)
	if err == nil || ctx.Err() != nil {
		return err
	}
	o.log.Warn("vnic of a pool can't be made like new, unplugging it", "pool", p.pool().String(), "vnic", string(p.ID), "error", err)
	return o.drainLocked(context.WithoutCancel(ctx), p)
}

func (o *Orchestrator) refreshSteps(ctx context.Context, p *pooled, guest, bridged bool) error {
	if bridged {
		err := within(ctx, "park", o.cfg.Deadlines.Park, func(ctx context.Context) error {
			return o.cfg.Host.Park(ctx, p.VM, p.ID)
		})
		if err != nil {
			return err
		}
	}
	if guest {
		err := o.scrub(ctx, p, o.cfg.Deadlines.Park)
		if err != nil && !errors.Is(err, vnic.ErrAgentUnavailable) {
			return err
		}
	}
	return o.park(ctx, p)
}
