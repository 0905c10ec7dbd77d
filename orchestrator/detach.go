package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// Detach takes a vNIC away and returns its attachment as it was, in phase
// released; with the timings of the detach, and in LastError what the guest half
// could not do before the vNIC was unplugged. That there is no such attachment
// is no error.
//
// Once begun, a detach goes on when ctx ends. When it fails, it goes on in the
// background.
func (o *Orchestrator) Detach(ctx context.Context, id vnic.ID) (a vnic.Attachment, err error) {
	ctx, end := o.observe(ctx, OpDetach)
	defer func() { end(a, err) }()
	gone := vnic.Attachment{ID: id, Phase: vnic.PhaseReleased}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return gone, fmt.Errorf("detach %s: %w", id, err)
	}
	defer done()
	r, err := o.read(ctx, id)
	if err != nil || r == nil {
		return gone, wrap(err, "detach %s", id)
	}
	unlock, err := o.locks.Lock(ctx, r.key())
	if err != nil {
		return gone, fmt.Errorf("detach %s: wait for another operation on this interface: %w", describe(r.key()), err)
	}
	defer unlock()
	if r, err = o.read(ctx, id); err != nil || r == nil {
		return gone, wrap(err, "detach %s", id)
	}
	err = o.detachLocked(ctx, r)
	return r.Attachment, err
}

// DetachKey is [Orchestrator.Detach] for who knows the key. It waits for an attach
// of that key which is under way.
func (o *Orchestrator) DetachKey(ctx context.Context, k vnic.Key) (vnic.Attachment, error) {
	return o.detachKey(ctx, k, func(vnic.Attachment) error { return nil })
}

// DetachManaged is DetachKey for the guest's container engines: an attachment that
// none of them asked for is a [vnic.ErrForbidden].
func (o *Orchestrator) DetachManaged(ctx context.Context, k vnic.Key) (vnic.Attachment, error) {
	return o.detachKey(ctx, k, managed)
}

// managed refuses what the guest did not ask for.
func managed(a vnic.Attachment) error {
	if a.Request.Manager == "" {
		return fmt.Errorf("attachment %s was made on the hypervisor; see `brfuse detach` there: %w", a.ID, vnic.ErrForbidden)
	}
	return nil
}

func (o *Orchestrator) detachKey(ctx context.Context, k vnic.Key, may func(vnic.Attachment) error) (a vnic.Attachment, err error) {
	ctx, end := o.observe(ctx, OpDetach)
	defer func() { end(a, err) }()
	gone := vnic.Attachment{Request: vnic.Request{Key: k}, Phase: vnic.PhaseReleased}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return gone, fmt.Errorf("detach %s: %w", describe(k), err)
	}
	defer done()
	unlock, err := o.locks.Lock(ctx, k)
	if err != nil {
		return gone, fmt.Errorf("detach %s: wait for another operation on this interface: %w", describe(k), err)
	}
	defer unlock()
	r, err := o.readKey(ctx, k)
	if err != nil || r == nil {
		return gone, wrap(err, "detach %s", describe(k))
	}
	if err := may(r.Attachment); err != nil {
		return r.Attachment, fmt.Errorf("detach %s: %w", describe(k), err)
	}
	err = o.detachLocked(ctx, r)
	return r.Attachment, err
}

// detachLocked detaches for a caller that holds the key's lock.
func (o *Orchestrator) detachLocked(ctx context.Context, r *record) error {
	err := o.undo(context.WithoutCancel(ctx), r)
	if err != nil && r.Phase == vnic.PhaseDetaching {
		err = fmt.Errorf("%w; it goes on in the background", err)
	}
	return wrap(err, "detach %s", describe(r.key()))
}

// wrap returns err with what it is about; nil stays nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(slices.Clip(args), err)...)
}

// undo takes back all that an attachment may have led to, from whichever phase,
// and deletes it. The caller holds the lock of its key. What fails is tried
// again in the background.
func (o *Orchestrator) undo(ctx context.Context, r *record) error {
	start := time.Now()
	r.Timings = nil
	err := o.undoSteps(ctx, r)
	if err != nil {
		o.logFor(r).Warn("detach failed", "error", err)
		r.LastError = err.Error()
		if r.Phase == vnic.PhaseDetaching {
			if werr := o.write(ctx, r); werr != nil {
				err = fmt.Errorf("%w; %w", err, werr)
			}
		}
		o.undoSoon(r.ID)
		return err
	}
	o.noteDetached(r)
	o.leaveSoon()
	r.Phase = vnic.PhaseReleased
	r.Timings = append(r.Timings, vnic.Timing{Step: "total", Duration: time.Since(start)})
	o.logFor(r).Info("detached", "took", time.Since(start), "steps", r.Timings, "note", r.LastError)
	return nil
}

func (o *Orchestrator) undoSteps(ctx context.Context, r *record) error {
	if err := reached(o.enterDetaching(ctx, r), "detach.detaching"); err != nil {
		return err
	}
	if r.Parking && !r.spoiled && o.seen.usableAgent(r.Request.VM) == nil {
		if done, err := o.parkSteps(ctx, r); done || err != nil {
			return err
		}
	}
	r.Parking = false
	// The unplug takes the vNIC out of the guest, whatever the guest says: so an
	// agent that can't release it is no reason to stop.
	if rerr := o.releaseStep(ctx, r); rerr != nil {
		o.logFor(r).Warn("guest did not release the vnic", "error", rerr)
		r.LastError = rerr.Error()
	} else if !r.silent {
		r.LastError = ""
	}
	if err := failpoint.Hit("detach.guest"); err != nil {
		return err
	}
	if err := reached(o.unplugStep(ctx, r), "detach.unplugged"); err != nil {
		return err
	}
	_, err := o.erase(ctx, r)
	return reached(err, "detach.released")
}

func (o *Orchestrator) releaseStep(ctx context.Context, r *record) error {
	if r.silent || o.seen.usable(r.Request.VM) != nil {
		return nil // the guest is gone, and the vNIC with it, or its agent was silent just now
	}
	return step(ctx, r, "release", o.cfg.Deadlines.Release, func(ctx context.Context) error {
		return o.cfg.Guest.Release(ctx, r.Request.VM, move(r.Attachment))
	})
}

func (o *Orchestrator) unplugStep(ctx context.Context, r *record) error {
	if r.untouched {
		return nil
	}
	return step(ctx, r, "unplug", o.cfg.Deadlines.Unplug, func(ctx context.Context) error {
		return o.unplug(ctx, r.Request.VM, r.VNIC())
	})
}

// unplug takes a vNIC away, also of a VM that was removed.
func (o *Orchestrator) unplug(ctx context.Context, vm string, id vnic.ID) error {
	err := o.cfg.Host.Unplug(ctx, vm, id)
	if !errors.Is(err, vnic.ErrUnknownVM) {
		return err
	}
	if known, kerr := o.knowsVM(ctx, vm); known || kerr != nil {
		return err // the host half is about to be told of it, after a restart
	}
	return o.cfg.Host.Unplug(ctx, "", id)
}

// undoLeftover undoes an attachment that is not ready, if it is still there.
func (o *Orchestrator) undoLeftover(ctx context.Context, id vnic.ID) error {
	return o.locked(ctx, id, func(r *record) error {
		if r.Phase == vnic.PhaseReady {
			return nil
		}
		return o.undo(ctx, r)
	})
}

// locked runs fn on an attachment under the lock of its key; not at all when
// there is no such attachment.
func (o *Orchestrator) locked(ctx context.Context, id vnic.ID, fn func(*record) error) error {
	r, err := o.read(ctx, id)
	if err != nil || r == nil {
		return err
	}
	unlock, err := o.locks.Lock(ctx, r.key())
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = o.read(ctx, id); err != nil || r == nil {
		return err
	}
	return fn(r)
}
