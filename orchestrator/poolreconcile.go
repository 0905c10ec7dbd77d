package orchestrator

import (
	"context"
	"errors"

	"github.com/brfuse/brfuse/vnic"
)

// settlePooled makes a vNIC that no attachment has parked and like new, or gone.
// One that was being plugged or unplugged, and nobody is at it any more, was left
// by a crash. One that somebody is at is left alone.
func (o *Orchestrator) settlePooled(ctx context.Context, old pooled, t truth) error {
	unlock, ok := o.vnics.TryLock(old.ID)
	if !ok {
		return nil
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

// asNew says whether a parked vNIC looks like one that was never used.
func (t truth) asNew(p pooled) bool {
	nic := t.nics[p.MAC]
	return !nic.Up && nic.Interface == p.ID.LinkName() && len(nic.Addresses) == 0
}

// refresh has a parked vNIC be parked on both sides again: an agent that was
// restarted has forgotten it, and anybody may have touched it meanwhile. Nobody
// takes it until that is done.
func (o *Orchestrator) refresh(ctx context.Context, p *pooled, t truth) error {
	bridged := t.ports[p.ID].Bridged
	// Without a session that is known, one begins, and the event of that comes.
	session := o.seen.session(p.VM)
	scrub := t.guest && session != "" && (!t.asNew(*p) || p.Session != session)
	if !scrub && !bridged {
		return nil
	}
	if err := o.shift(ctx, p, filling, nil); err != nil {
		if errors.Is(err, errTaken) {
			return nil
		}
		return err
	}
	err := o.refreshSteps(ctx, p, scrub, bridged)
	if err == nil || ctx.Err() != nil {
		return err
	}
	o.log.Warn("vnic of a pool can't be made like new, unplugging it", "pool", p.pool().String(), "vnic", string(p.ID), "error", err)
	return o.drainLocked(context.WithoutCancel(ctx), p)
}

func (o *Orchestrator) refreshSteps(ctx context.Context, p *pooled, scrub, bridged bool) error {
	if bridged {
		err := within(ctx, "park", o.cfg.Deadlines.Park, func(ctx context.Context) error {
			return o.cfg.Host.Park(ctx, p.VM, p.ID)
		})
		if err != nil {
			return err
		}
	}
	if scrub {
		err := o.scrub(ctx, p, o.cfg.Deadlines.Park)
		if err != nil && !errors.Is(err, vnic.ErrAgentUnavailable) {
			return err
		}
	}
	return o.park(ctx, p)
}
