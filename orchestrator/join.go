package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// join writes down that this hypervisor is there. What it held when it was released
// is gone from the store before that.
func (o *Orchestrator) join(ctx context.Context) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	self := o.cfg.Cluster.Self
	if err := o.checkFamily(ctx, self); err != nil {
		return wrap(err, "join as hypervisor %s", self.Name)
	}
	for {
		var released bool
		_, err := o.shared.Update(ctx, func(tx store.Tx) error {
			old, found, err := fabric.Find(tx, self.Name)
			if released = old.Released && !old.Emptied; err != nil || released {
				return err
			}
			if found {
				err = checkTwin(tx, old.Hypervisor, self)
			}
			if err != nil {
				return err
			}
			if err := claimUnderlay(tx, old.Hypervisor, self); err != nil {
				return err
			}
			return save(tx, fabric.HypervisorPrefix+self.Name, fabric.Record{Hypervisor: self})
		})
		switch {
		case err != nil:
			return wrap(err, "join as hypervisor %s", self.Name)
		case !released:
			return nil
		}
		o.log.Warn("this hypervisor was given up as dead; what it held is released")
		if err := o.release(ctx, self.Name); err != nil {
			return fmt.Errorf("release what it held: %w", err)
		}
	}
}

// checkFamily returns an error when this hypervisor comes with an underlay of another
// family than the others have: they could not exchange frames. Those that are dead count
// for one that is new, so that it can't come before them after all were off; not for one
// that has come before and changes its family, which all do one after the other.
func (o *Orchestrator) checkFamily(ctx context.Context, self vnic.Hypervisor) error {
	known, err := fabric.Hypervisors(ctx, o.shared)
	if err != nil || !self.Underlay.IsValid() {
		return err
	}
	differs := func(h vnic.Hypervisor) bool {
		return h.Underlay.IsValid() && h.Underlay.Unmap().Is4() != self.Underlay.Unmap().Is4()
	}
	i := slices.IndexFunc(known, func(k fabric.Known) bool { return k.Name == self.Name && !k.Released && k.Underlay.IsValid() })
	if i >= 0 && !differs(known[i].Hypervisor) {
		return nil
	}
	for _, k := range known {
		if k.Name != self.Name && differs(k.Hypervisor) && (k.Alive || i < 0 && !k.Released) {
			return fmt.Errorf("underlay %s is not of the same family as %s of hypervisor %s; give all IPv4 addresses, or all IPv6; `brfuse hosts rm %s` if that one is gone: %w",
				self.Underlay, k.Underlay, k.Name, k.Name, vnic.ErrInvalid)
		}
	}
	return nil
}

// checkTwin returns an error when another machine is alive as this hypervisor.
func checkTwin(tx store.ReadTx, old, self vnic.Hypervisor) error {
	it, err := tx.Get(fabric.AlivePrefix + self.Name)
	if err != nil || !it.Exists() || old.Underlay == self.Underlay && old.Boot == self.Boot {
		return err
	}
	where := "with underlay " + old.Underlay.String()
	if old.Underlay == self.Underlay {
		where = "on another machine, or in its last run"
	}
	return fmt.Errorf("a hypervisor %s is alive, %s; give each its own name, or wait until that one is seen dead: %w", self.Name, where, vnic.ErrInUse)
}

// claimUnderlay makes the underlay address this hypervisor's, in the place of the one that it had.
func claimUnderlay(tx store.Tx, old, self vnic.Hypervisor) error {
	if old.Underlay.IsValid() && old.Underlay != self.Underlay {
		if err := giveUnderlay(tx, old); err != nil {
			return err
		}
	}
	if !self.Underlay.IsValid() {
		return nil
	}
	it, err := tx.Get(fabric.UnderlayPrefix + self.Underlay.String())
	if err != nil {
		return err
	}
	if other := string(it.Value); it.Exists() && other != self.Name {
		r, found, err := fabric.Find(tx, other)
		if err != nil {
			return err
		}
		if found && !r.Released && r.Underlay == self.Underlay {
			return fmt.Errorf("underlay %s is that of hypervisor %s; give each its own, or `brfuse hosts rm %s` if it is gone: %w",
				self.Underlay, other, other, vnic.ErrInUse)
		}
	}
	return tx.Put(it.Key, []byte(self.Name))
}

// giveUnderlay gives a hypervisor's underlay address back, if it is still its.
func giveUnderlay(tx store.Tx, h vnic.Hypervisor) error {
	if !h.Underlay.IsValid() {
		return nil
	}
	it, err := tx.Get(fabric.UnderlayPrefix + h.Underlay.String())
	if err != nil || string(it.Value) != h.Name {
		return err
	}
	return tx.Delete(it.Key)
}

// keepAlive holds the key by which the others see this hypervisor alive. When it gets
// the key back, others may have released this one meanwhile.
func (o *Orchestrator) keepAlive() {
	self := o.cfg.Cluster.Self.Name
	err := o.cfg.Cluster.KeepAlive(o.life, fabric.AlivePrefix+self, []byte(self), func() {
		o.queue.add("see whether this hypervisor was released", o.rejoin)
	})
	if o.life.Err() == nil {
		o.log.Error("this hypervisor can't be kept alive in the store; start its daemon anew", "error", err)
	}
}

// rejoin takes this hypervisor back when it was released, or forgotten, while its daemon
// ran: the vNICs that it had belong to nobody now, and its own addresses are gone.
func (o *Orchestrator) rejoin(ctx context.Context) error {
	released, err := o.released(ctx)
	if err != nil || !released {
		return err
	}
	if err := o.join(ctx); err != nil {
		return err
	}
	o.sweepSoon()
	for vm := range o.mine.m.Range {
		name := vm.(string) //nolint:forcetypeassert // see register
		o.queue.add("see whether vm "+name+" is registered", func(ctx context.Context) error { return o.dropForgotten(ctx, name) })
	}
	return cmp.Or(o.reconcileAllSoon(ctx), o.reenter(ctx))
}

func (o *Orchestrator) released(ctx context.Context) (is bool, err error) {
	err = o.shared.View(ctx, func(tx store.ReadTx) error {
		r, found, err := fabric.Find(tx, o.Hypervisor())
		is = !found || r.Released
		return err
	})
	return is, err
}

// dropForgotten takes all vNICs from a VM that was forgotten with this hypervisor, and
// forgets it here too.
func (o *Orchestrator) dropForgotten(ctx context.Context, vm string) error {
	unlock, err := o.names.Lock(ctx, vmPrefix+vm)
	if err != nil {
		return fmt.Errorf("vm %s: wait for another operation on it: %w", vm, err)
	}
	defer unlock()
	if known, err := o.knowsVM(ctx, vm); err != nil || known {
		return err
	}
	o.log.Warn("vm was forgotten with this hypervisor; add it again to use it", "vm", vm)
	if o.seen.usable(vm) == nil {
		t, err := o.ask(ctx, vm)
		if err == nil {
			err = o.removeStrays(ctx, vm, t)
		}
		if err != nil {
			return fmt.Errorf("remove the vnics of vm %s, which was forgotten: %w", vm, err)
		}
	}
	return o.forgetVM(ctx, vm)
}

// joined returns an error when this hypervisor was released: what it wrote would be
// released as well.
func (o *Orchestrator) joined(tx store.ReadTx) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	r, found, err := fabric.Find(tx, o.Hypervisor())
	switch {
	case err != nil:
		return err
	case !found || r.Released:
		return fmt.Errorf("hypervisor %s was given up as dead and is coming back; try again: %w", o.Hypervisor(), vnic.ErrHypervisorUnavailable)
	}
	return nil
}
