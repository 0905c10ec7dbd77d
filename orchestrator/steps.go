package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// carryOut takes a leased attachment to ready. It undoes nothing.
func (o *Orchestrator) carryOut(ctx context.Context, r *record, start time.Time) error {
	nic, err := o.provide(ctx, r)
	if err != nil {
		return err
	}
	if err := o.configureStep(ctx, r, nic); err != nil {
		return err
	}
	r.Timings = append(r.Timings, vnic.Timing{Step: "total", Duration: time.Since(start)})
	return o.enter(ctx, r, vnic.PhaseReady)
}

// provide has the pod get its vNIC: the parked one that r has, or a new one.
func (o *Orchestrator) provide(ctx context.Context, r *record) (vnic.NIC, error) {
	if r.Device != "" {
		if nic, err := o.provideWarm(ctx, r); err != nil || r.Device != "" {
			return nic, err
		}
	}
	if err := failpoint.Hit("attach.leased"); err != nil {
		return vnic.NIC{}, err
	}
	if err := o.plugStep(ctx, r); err != nil {
		return vnic.NIC{}, err
	}
	if err := o.enter(ctx, r, vnic.PhasePlugged); err != nil {
		return vnic.NIC{}, err
	}
	nic, err := o.moveStep(ctx, r)
	if err != nil {
		return nic, err
	}
	if done(r, nic) { // the next phase is recorded at once
		return nic, failpoint.Hit("attach.moved")
	}
	return nic, o.enter(ctx, r, vnic.PhaseMoved)
}

// done tells that nothing is left to be configured in the pod: the guest has done so
// with the move, or an engine does.
func done(r *record, nic vnic.NIC) bool { return nic.Up || r.Request.Handover }

// enter records a phase. The one before stays in r when that fails.
func (o *Orchestrator) enter(ctx context.Context, r *record, p vnic.Phase) error {
	before := r.Phase
	r.Phase = p
	if err := o.write(ctx, r); err != nil {
		r.Phase = before
		return err
	}
	return failpoint.Hit("attach." + string(p))
}

// plugStep makes sure that the guest can take the vNIC before it is plugged.
func (o *Orchestrator) plugStep(ctx context.Context, r *record) error {
	vm := r.Request.VM
	err := step(ctx, r, "prepare", o.cfg.Deadlines.Prepare, func(ctx context.Context) error {
		return o.cfg.Guest.Prepare(ctx, vm, move(r.Attachment))
	})
	if err != nil {
		return o.nameCause("prepare", vm, err)
	}
	r.untouched = false
	if err = o.plugOnce(ctx, r); errors.Is(err, vnic.ErrNoSlot) {
		return o.evict(ctx, r, err)
	}
	return err
}

// nameCause returns that the VM is gone when that is why its agent is.
func (o *Orchestrator) nameCause(name, vm string, err error) error {
	if errors.Is(err, vnic.ErrAgentUnavailable) {
		if gone := o.seen.usable(vm); gone != nil {
			return fmt.Errorf("%s: %w", name, gone)
		}
	}
	return err
}

func (o *Orchestrator) plugOnce(ctx context.Context, r *record) error {
	return step(ctx, r, "plug", o.cfg.Deadlines.Plug, func(ctx context.Context) error {
		port, err := o.cfg.Host.Plug(ctx, plug(r.Attachment))
		r.Slot = port.Slot
		return err
	})
}

// moveStep has the guest move the vNIC, and takes the timings from there.
func (o *Orchestrator) moveStep(ctx context.Context, r *record) (vnic.NIC, error) {
	ctx, end := beginStep(ctx, "move")
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Move)
	defer cancel()
	nic, timings, err := o.cfg.Guest.Move(ctx, r.Request.VM, move(r.Attachment))
	end(timings, err)
	r.Timings = append(r.Timings, timings...)
	if err != nil {
		return nic, late(ctx, "move", o.cfg.Deadlines.Move, err)
	}
	r.GuestPCI = nic.PCI
	return nic, nil
}

// configureStep has the guest configure the vNIC, unless that is done.
func (o *Orchestrator) configureStep(ctx context.Context, r *record, nic vnic.NIC) error {
	if done(r, nic) {
		return nil
	}
	return step(ctx, r, "configure", o.cfg.Deadlines.Configure, func(ctx context.Context) error {
		_, err := o.cfg.Guest.Configure(ctx, r.Request.VM, move(r.Attachment))
		return err
	})
}

// step runs fn within limit, records how long it took, and names it in its error.
func step(ctx context.Context, r *record, name string, limit time.Duration, fn func(context.Context) error) error {
	ctx, end := beginStep(ctx, name)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	err := fn(ctx)
	end(nil, err)
	r.Timings = append(r.Timings, vnic.Timing{Step: name, Duration: time.Since(start)})
	return late(ctx, name, limit, err)
}

// late names the step, and the limit when that was the reason.
func late(ctx context.Context, name string, limit time.Duration, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer within %s: %w", name, limit, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// reached returns err, or what the failpoint does.
func reached(err error, point string) error {
	if err != nil {
		return err
	}
	return failpoint.Hit(point)
}
