package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// truth is what both halves say of a VM, and when.
type truth struct {
	ports map[vnic.ID]vnic.Port
	nics  map[vnic.MAC]vnic.NIC
	guest bool // the agent answered: nics can be relied on
}

// parallel bounds how many attachments of a VM are reconciled at once.
const parallel = 8

// Reconcile makes the store, the hypervisor, the host's taps and the guest agree
// about a VM. It happens by itself after a restart, and when a VM or its agent
// comes back. When it returns without an error, each attachment is ready or
// gone, but for what a guest without an agent can't tell. When the hypervisor
// can't be asked, nothing was changed.
func (o *Orchestrator) Reconcile(ctx context.Context, vm string) error {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("reconcile vm %s: %w", vm, err)
	}
	defer done()
	if err := o.reconcileNow(ctx, vm); err != nil {
		return fmt.Errorf("reconcile vm %s: %w", vm, err)
	}
	return nil
}

// reconcile is the task of that name.
func (o *Orchestrator) reconcile(ctx context.Context, vm string) error {
	err := o.reconcileNow(ctx, vm)
	if errors.Is(err, vnic.ErrUnknownVM) {
		o.log.Debug("vm is not reconciled", "vm", vm, "error", err)
		return nil // it was removed, or will be reconciled once both halves know it
	}
	return err
}

func (o *Orchestrator) reconcileNow(ctx context.Context, vm string) error {
	unlock, err := o.names.Lock(ctx, reconcilePrefix+vm)
	if err != nil {
		return fmt.Errorf("wait until its migration is over: %w", err)
	}
	defer unlock()
	known, err := o.knowsVM(ctx, vm)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("not registered; see `brfuse vm add`: %w", vnic.ErrUnknownVM)
	}
	// The records are read first: what was ready before the halves were asked has
	// to be in their answers.
	list, err := o.records(ctx, vm)
	if err != nil {
		return err
	}
	vnics, err := o.idle(ctx, vm)
	if err != nil {
		return err
	}
	var t truth
	if o.seen.usable(vm) == nil {
		if t, err = o.ask(ctx, vm); err != nil {
			return err
		}
	}
	err = forEach(list, func(r record) error { return o.settle(ctx, r, t) })
	perr := forEach(vnics, func(p pooled) error {
		return wrap(o.settlePooled(ctx, p, t), "vnic %s of pool %s", p.ID, p.pool())
	})
	return errors.Join(err, perr, o.removeStrays(ctx, vm, t), o.tendVM(ctx, vm, vnics))
}

// forEach runs fn on all of a list, some at a time, and joins the errors.
func forEach[T any](list []T, fn func(T) error) error {
	errs := make([]error, len(list))
	room := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, r := range list {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			errs[i] = fn(r)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ask asks both halves about a VM. That the agent is absent is no error.
func (o *Orchestrator) ask(ctx context.Context, vm string) (truth, error) {
	ports, err := o.ports(ctx, vm)
	if err != nil {
		return truth{}, err
	}
	t := truth{ports: make(map[vnic.ID]vnic.Port, len(ports)), nics: map[vnic.MAC]vnic.NIC{}}
	for _, p := range ports {
		t.ports[p.ID] = p
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Query)
	defer cancel()
	nics, err := o.cfg.Guest.NICs(ctx, vm)
	switch {
	case errors.Is(err, vnic.ErrAgentUnavailable):
		o.log.Info("guest is not reconciled until its agent is there", "vm", vm, "error", err)
		return t, nil
	case err != nil:
		return truth{}, fmt.Errorf("ask guest: %w", err)
	}
	t.guest = true
	for _, n := range nics {
		t.nics[n.MAC] = n
	}
	return t, nil
}

func (o *Orchestrator) ports(ctx context.Context, vm string) ([]vnic.Port, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Query)
	defer cancel()
	ports, err := o.cfg.Host.Ports(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("ask host: %w", err)
	}
	return ports, nil
}

// settle makes one attachment ready or gone.
func (o *Orchestrator) settle(ctx context.Context, old record, t truth) error {
	err := o.locked(ctx, old.ID, func(r *record) error {
		if r.Phase != vnic.PhaseReady {
			o.logFor(r).Info("attachment was not finished, undoing it", "phase", string(r.Phase))
			return o.undo(ctx, r)
		}
		if o.seen.usable(r.Request.VM) != nil {
			o.logFor(r).Info("vm is gone, releasing its vnic")
			return o.undo(ctx, r)
		}
		if r.rev != old.rev {
			var err error
			if t, err = o.ask(ctx, r.Request.VM); err != nil {
				return err
			}
		}
		return o.verify(ctx, r, t)
	})
	return wrap(err, "attachment %s", old.ID)
}

// check is verify for who has not asked the halves. It leaves r in phase ready
// when all is well or nothing could be learned.
func (o *Orchestrator) check(ctx context.Context, r *record) error {
	if r.Phase != vnic.PhaseReady || o.seen.usable(r.Request.VM) != nil {
		return o.undo(context.WithoutCancel(ctx), r)
	}
	t, err := o.ask(ctx, r.Request.VM)
	if err != nil {
		return err
	}
	return o.verify(context.WithoutCancel(ctx), r, t)
}

// verify keeps a ready attachment whose vNIC is where it belongs, and undoes any
// other. A tap that lost its bridge gets it back, and a vNIC its published ports
// and limits, which end with the host half. One that was handed over belongs
// wherever its engine has it, also in the guest's first namespace.
func (o *Orchestrator) verify(ctx context.Context, r *record, t truth) error {
	log := o.logFor(r)
	if p := t.ports[r.VNIC()]; !p.Plug || !p.Tap {
		log.Warn("device or tap is missing, detaching", "device", p.Plug, "tap", p.Tap)
		r.spoiled = true
		return o.undo(ctx, r)
	}
	if !t.ports[r.VNIC()].Bridged {
		log.Warn("tap is not up in its network's bridge, making it a port again", "network", r.Request.Network)
		if err := o.bridgeAgain(ctx, r); err != nil {
			return fmt.Errorf("tap %s is not up in its network's bridge: repair: %w", r.VNIC().TapName(), err)
		}
		var err error
		if t, err = o.ask(ctx, r.Request.VM); err != nil { // that took a while
			return err
		}
	}
	// The guest first, while its answer is fresh; and a port that another program has
	// doesn't keep a dead pod's vNIC.
	undone, err := o.verifyInGuest(ctx, r, t)
	if undone {
		return err
	}
	return errors.Join(err, o.publishAgain(ctx, r), wrap(o.announceAgain(ctx, r), "tell all of it"))
}

// verifyInGuest tells the guest of an attachment whose vNIC is in its pod, and undoes
// any other.
func (o *Orchestrator) verifyInGuest(ctx context.Context, r *record, t truth) (undone bool, err error) {
	if !t.guest {
		return false, nil
	}
	log := o.logFor(r)
	if nic, ok := t.nics[r.MAC]; ok && nic.Netns == "" && !r.Request.Handover {
		log.Info("vnic is in the guest's first namespace: its pod died, detaching", "interface", nic.Interface)
		return true, o.undo(ctx, r)
	}
	err = o.tell(ctx, r)
	switch {
	case errors.Is(err, vnic.ErrAgentUnavailable):
		log.Info("agent went away while it was told of a vnic", "error", err)
		return false, nil
	case errors.Is(err, vnic.ErrUnknownPod), errors.Is(err, vnic.ErrNICMissing), errors.Is(err, vnic.ErrNameTaken):
		log.Warn("vnic is not in its pod any more, detaching", "error", err)
		r.spoiled = isSpoilt(err)
		return true, o.undo(ctx, r)
	}
	return false, err
}

// bridgeAgain makes the attachment's tap a port of its network's bridge, which
// was deleted, or which it was taken from.
func (o *Orchestrator) bridgeAgain(ctx context.Context, r *record) error {
	var n networkRecord
	var rev int64
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		rev, err = load(tx, networkPrefix+r.Request.Network, &n)
		return err
	})
	switch {
	case err != nil:
		return err
	case rev == 0:
		return fmt.Errorf("network %s does not exist; see `brfuse network create`: %w", r.Request.Network, vnic.ErrUnknownNetwork)
	}
	if err := o.setNetwork(ctx, n.Network); err != nil {
		return err
	}
	return o.plugAgain(ctx, r)
}

// plugAgain has the host half put right the port of a vNIC that is plugged.
func (o *Orchestrator) plugAgain(ctx context.Context, r *record) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Plug)
	defer cancel()
	_, err := o.cfg.Host.Plug(ctx, plug(r.Attachment))
	return late(ctx, "plug", o.cfg.Deadlines.Plug, err)
}

// tell repeats to a guest what it was told when the attachment was made: an
// agent that was restarted has forgotten it.
func (o *Orchestrator) tell(ctx context.Context, r *record) error {
	told := *r // the timings stay those of the attach
	nic, err := o.moveStep(ctx, &told)
	if err != nil {
		return err
	}
	return o.configureStep(ctx, &told, nic)
}

// removeStrays unplugs what the host has of a VM and no attachment accounts for,
// and reports what the guest has. A record is written before its vNIC is
// plugged, so a port without one, looked up after the ports, is a stray. One with
// a record of another VM is not.
func (o *Orchestrator) removeStrays(ctx context.Context, vm string, t truth) error {
	var errs []error
	for id, p := range t.ports {
		owner, known, err := o.owner(ctx, id)
		switch {
		case err != nil:
			errs = append(errs, err)
		case known:
			o.checkOwner(p, owner)
		default:
			o.log.Warn("port of no attachment, unplugging it", "vm", vm, "vnic", string(id), "device", p.Plug, "tap", p.Tap)
			errs = append(errs, o.unplugStray(ctx, p))
		}
	}
	for _, n := range t.nics {
		if n.ID == "" {
			continue
		}
		if _, known, err := o.owner(ctx, n.ID); err == nil && !known && t.ports[n.ID].ID == "" {
			o.log.Warn("guest has a vnic of no attachment", "vm", vm, "vnic", string(n.ID), "mac", n.MAC,
				"interface", n.Interface, "netns", n.Netns)
		}
	}
	return errors.Join(errs...)
}

// checkOwner complains of a vNIC that another VM has than its attachment says:
// both are the same hypervisor, registered by two sockets. It is left alone.
func (o *Orchestrator) checkOwner(p vnic.Port, owner string) {
	if p.VM != "" && p.VM != owner {
		o.log.Error("two vms are the same hypervisor, remove one of them by `brfuse vm rm`",
			"vm", p.VM, "other", owner, "attachment", string(p.ID))
	}
}

func (o *Orchestrator) unplugStray(ctx context.Context, p vnic.Port) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Unplug)
	defer cancel()
	err := o.cfg.Host.Unplug(ctx, p.VM, p.ID)
	return wrap(err, "unplug stray %s", p.ID)
}

// sweep removes the taps of no VM that no attachment accounts for: a crash may
// leave them, of this daemon or of a hypervisor.
func (o *Orchestrator) sweep(ctx context.Context) error {
	ports, err := o.ports(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range ports {
		if p.VM != "" {
			continue // its reconcile sees to it
		}
		if _, known, err := o.owner(ctx, p.ID); err != nil {
			errs = append(errs, err)
		} else if !known {
			o.log.Warn("tap of no attachment, removing it", "vnic", string(p.ID))
			errs = append(errs, o.unplugStray(ctx, p))
		}
	}
	return errors.Join(append(errs, o.sweepComing(ctx))...)
}

func (o *Orchestrator) knowsVM(ctx context.Context, vm string) (known bool, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		it, err := tx.Get(vmPrefix + vm)
		known = it.Exists()
		return err
	})
	return known, err
}
