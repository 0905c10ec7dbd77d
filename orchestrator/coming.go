package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// strayComing finds taps for a VM's next process though the VM is not being moved: a
// process that could not be ended holds them.
func (o *Orchestrator) strayComing(ctx context.Context) ([]finding, error) {
	if o.cfg.Migrator == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Query)
	defer cancel()
	taps, err := o.cfg.Migrator.ComingTaps(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask host: %w", err)
	}
	var found []finding
	for id, name := range taps {
		vm, err := o.vmRecord(ctx, name) // after the taps: theirs was written before
		if err != nil {
			return nil, err
		}
		if vm.Migrating == nil {
			found = append(found, finding{
				fmt.Sprintf("tap of vnic %s for the next qemu of vm %s, which is not being moved", id, name),
				func(ctx context.Context) error { return o.removeComing(ctx, name, id) },
			})
		}
	}
	return found, nil
}

// removeComing removes a tap for a VM's next process, unless that is being moved.
func (o *Orchestrator) removeComing(ctx context.Context, name string, id vnic.ID) error {
	return o.named(ctx, vmPrefix+name, func() error {
		vm, err := o.vmRecord(ctx, name)
		if err != nil || vm.Migrating != nil {
			return err
		}
		return o.cfg.Migrator.RemoveComingTap(ctx, id)
	})
}

// sweepComing removes what strayComing finds.
func (o *Orchestrator) sweepComing(ctx context.Context) error {
	found, err := o.strayComing(ctx)
	errs := []error{err}
	for _, f := range found {
		o.log.Warn("removing " + f.text)
		errs = append(errs, f.remove(ctx))
	}
	return errors.Join(errs...)
}
