package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// settleMigration finds out where a VM is, writes that down, and registers it there.
// The VM is closed.
func (o *Orchestrator) settleMigration(ctx context.Context, m vnic.Migration) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	moved, err = o.cfg.Migrator.SettleMigration(ctx, m)
	if err != nil {
		return false, fmt.Errorf("find out where the vm is: %w", late(ctx, "settle", settleLimit, err))
	}
	if err := failpoint.Hit("migrate.settled"); err != nil {
		return false, err
	}
	name, now := m.From.Name, m.From
	err = o.changeVM(ctx, name, func(vm *vmRecord) {
		vm.Migrating = nil
		if moved {
			vm.QMP, vm.Channel = m.To.QMP, m.To.Channel
			now = vm.VM
		}
	})
	if err != nil {
		return false, fmt.Errorf("record where the vm is: %w", err)
	}
	if err := o.registerAgain(ctx, now); err != nil {
		o.log.Error("vm is not registered, it will be tried again", "vm", name, "error", err)
		o.queue.add("register vm "+name, func(ctx context.Context) error { return o.restoreVM(ctx, name) })
	}
	o.reconcileSoon(name)
	return moved, nil
}

// registerAgain tells both halves of a VM whose sockets may be others than before.
func (o *Orchestrator) registerAgain(ctx context.Context, vm vnic.VM) error {
	if err := o.cfg.VMs.RemoveVM(ctx, vm.Name); err != nil && !errors.Is(err, vnic.ErrUnknownVM) {
		return err
	}
	return o.register(ctx, vm)
}

// settleAgain is the task that ends a migration of which nobody knew where it had
// come to. open opens the VM.
func (o *Orchestrator) settleAgain(ctx context.Context, name string, open func()) error {
	return o.named(ctx, vmPrefix+name, func() error {
		vm, err := o.vmRecord(ctx, name)
		if err == nil && vm.Migrating != nil {
			err = o.resumeMigration(ctx, vm)
		}
		if err == nil {
			open()
		}
		return err
	})
}

// resumeMigration settles a migration that the store tells of.
func (o *Orchestrator) resumeMigration(ctx context.Context, vm vmRecord) error {
	if o.cfg.Migrator == nil {
		return fmt.Errorf("vm %s was being moved to %s, and this host moves no vms: %w", vm.Name, vm.Migrating.QMP, vnic.ErrUnsupported)
	}
	m, err := o.migration(ctx, vm.VM, *vm.Migrating)
	if err != nil && !errors.Is(err, vnic.ErrInUse) {
		return err
	}
	moved, err := o.settleMigration(ctx, m)
	if err == nil {
		o.log.Info("settled a migration that was cut short", "vm", vm.Name, "moved", moved)
	}
	return err
}

func (o *Orchestrator) vmRecord(ctx context.Context, name string) (vm vmRecord, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		_, err := load(tx, vmPrefix+name, &vm)
		return err
	})
	return vm, err
}
