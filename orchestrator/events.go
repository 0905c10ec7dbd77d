package orchestrator

import (
	"context"
	"fmt"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// vmStates remembers which VMs the host half said are gone, and which agents are
// there. About other VMs nothing is known but that they may be there.
type vmStates struct {
	mu     sync.Mutex
	gone   map[string]bool   // guarded by mu
	agents map[string]string // guarded by mu; a name of the session with those that came and did not go
}

func (s *vmStates) set(vm string, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone == nil {
		s.gone = map[string]bool{}
	}
	if gone {
		s.gone[vm] = true
	} else {
		delete(s.gone, vm)
	}
}

// setAgent notes that the agent of a VM came or went.
func (s *vmStates) setAgent(vm string, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents == nil {
		s.agents = map[string]string{}
	}
	if there {
		s.agents[vm] = string(vnic.NewID())
	} else {
		delete(s.agents, vm)
	}
}

// usableAgent returns [vnic.ErrVMGone] or [vnic.ErrAgentUnavailable] when the VM or
// its agent is not known to be there.
func (s *vmStates) usableAgent(vm string) error {
	if err := s.usable(vm); err != nil {
		return err
	}
	if s.session(vm) == "" {
		return fmt.Errorf("vm %s: %w", vm, vnic.ErrAgentUnavailable)
	}
	return nil
}

// session names the session with the agent of a VM: another one has another name,
// after a restart too. It is empty when there is none.
func (s *vmStates) session(vm string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agents[vm]
}

// usable returns [vnic.ErrVMGone] when the VM is gone.
func (s *vmStates) usable(vm string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[vm] {
		return fmt.Errorf("vm %s: its hypervisor does not answer; start the vm: %w", vm, vnic.ErrVMGone)
	}
	return nil
}

// Notify takes an event of one of the halves and returns at once; what follows
// from it is done in the background. Events of one VM have to come in their
// order.
//
// A VM or an agent that came up is reconciled, and a VM whose agent does not know
// the vNIC that it tells of. A VM that is gone, a vNIC that was unplugged by
// another, and one whose pod died are released. The guest is not trusted: a
// returned vNIC has to be one of that very VM. An event about the vNIC of a pool may
// be older than the attachment that has it: then both halves are asked.
func (o *Orchestrator) Notify(ev vnic.Event) {
	o.log.Debug("event", "kind", string(ev.Kind), "vm", ev.VM, "attachment", string(ev.ID))
	switch ev.Kind {
	case vnic.EventVMUp, vnic.EventVMGone:
		o.seen.set(ev.VM, ev.Kind == vnic.EventVMGone)
		o.reconcileSoon(ev.VM)
		o.sweepSoon()
	case vnic.EventAgentUp:
		o.seen.setAgent(ev.VM, true)
		o.reconcileSoon(ev.VM)
	case vnic.EventAgentOff:
		o.seen.setAgent(ev.VM, false)
	case vnic.EventRemoved, vnic.EventReturned:
		if ev.ID == "" { // of an agent that was restarted and has not been told yet
			o.reconcileForGuest(ev.VM)
			return
		}
		o.queue.add(fmt.Sprintf("%s %s %s %s", ev.Kind, ev.VM, ev.ID, ev.MAC), func(ctx context.Context) error {
			return o.lost(ctx, ev)
		})
	}
}

// lost releases an attachment whose vNIC was unplugged or whose pod died.
func (o *Orchestrator) lost(ctx context.Context, ev vnic.Event) error {
	r, err := o.holder(ctx, ev.ID)
	if err != nil {
		return err
	}
	if r == nil {
		return o.lostIdle(ctx, ev)
	}
	// Before the lock: a guest that makes things up doesn't wait for others' operations.
	if r.Request.VM != ev.VM || ev.Kind == vnic.EventReturned && r.MAC != ev.MAC {
		o.logFor(r).Warn("event about a vnic that its vm does not have, ignored", "kind", string(ev.Kind), "vm", ev.VM, "mac", ev.MAC)
		return nil
	}
	checked := false
	err = o.locked(ctx, r.ID, func(r *record) error {
		log := o.logFor(r)
		switch {
		case r.VNIC() != ev.ID:
			log.Debug("vnic was given up meanwhile", "vnic", string(ev.ID))
			return nil
		case ev.Kind == vnic.EventRemoved:
			log.Warn("vnic was unplugged by the guest or by hand, releasing it")
			r.spoiled = true
			return o.undo(ctx, r)
		case r.Request.Handover:
			log.Debug("vnic is back in the guest's first namespace, for its engine to take or to give back")
			return nil
		case r.Device != "":
			checked = true
			return o.check(ctx, r) // the event may be about the pod that had the vNIC before
		}
		log.Info("pod is gone, releasing its vnic")
		return o.undo(ctx, r)
	})
	if checked && err == nil {
		rest(ctx)
	}
	return err
}

// lostIdle is lost for a vNIC that no attachment has.
func (o *Orchestrator) lostIdle(ctx context.Context, ev vnic.Event) error {
	p, err := o.readPooled(ctx, ev.ID)
	if err != nil || p == nil || p.VM != ev.VM || ev.Kind != vnic.EventRemoved {
		return err
	}
	o.log.Warn("vnic of a pool was unplugged by the guest or by hand", "pool", p.pool().String(), "vnic", string(p.ID))
	if err := o.drain(ctx, p.ID); err != nil {
		return err
	}
	o.tendSoon(p.pool())
	return nil
}
