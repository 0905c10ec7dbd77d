package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Migrator is what a [Host] needs beside to move running VMs from one hypervisor
// process to another.
type Migrator interface {
	// CheckMigration tells whether a migration can be begun, and changes nothing.
	CheckMigration(ctx context.Context, m vnic.Migration) error
	// Migrate moves a VM, with its vNICs wired as before. It forgets the VM.
	Migrate(ctx context.Context, m vnic.Migration) error
	// SettleMigration is called after Migrate, whatever that returned, or after a
	// restart in the middle. It tells whether the VM has moved, and leaves nothing of
	// the process that it isn't in. The error tells that nobody knows yet. The VM may
	// be registered again afterwards.
	SettleMigration(ctx context.Context, m vnic.Migration) (moved bool, err error)
	// ComingTaps returns the vNICs that have a tap for the next process of their VMs,
	// with the names of those.
	ComingTaps(ctx context.Context) (map[vnic.ID]string, error)
	// RemoveComingTap removes such a tap; that it is gone is no error.
	RemoveComingTap(ctx context.Context, id vnic.ID) error
}

const (
	// DefaultMigration is how long a migration may take.
	DefaultMigration = 10 * time.Minute
	// settleLimit bounds the end of a migration, whatever became of its context.
	settleLimit = time.Minute
)

// MigrateVM moves a running VM, with the vNICs that are attached to its pods or
// parked, to the hypervisor process that waits at the sockets of to, and returns the
// VM as it is registered then. Meanwhile attaches and detaches of the VM wait. When it
// fails, or takes longer than limit (default: [DefaultMigration]), the VM goes on
// where it was. A daemon that is killed in the middle decides after its restart.
//
// Errors: [vnic.ErrUnknownVM], [vnic.ErrUnsupported], [vnic.ErrVMGone],
// [vnic.ErrInUse] and those of [Migrator.CheckMigration].
func (o *Orchestrator) MigrateVM(ctx context.Context, name string, to vnic.VM, limit time.Duration) (vnic.VM, error) {
	if limit <= 0 {
		limit = DefaultMigration
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return vnic.VM{}, fmt.Errorf("migrate vm %s: %w", name, err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var vm vnic.VM
	err = o.named(ctx, vmPrefix+name, func() (err error) {
		vm, err = o.migrateVM(ctx, name, to)
		return err
	})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
		err = fmt.Errorf("not done within %s: %w", limit, err)
	}
	return vm, wrap(err, "migrate vm %s", name)
}

// migrateVM is MigrateVM under the lock of the VM.
func (o *Orchestrator) migrateVM(ctx context.Context, name string, to vnic.VM) (vnic.VM, error) {
	from, err := o.migratable(ctx, name, &to)
	if err != nil {
		return vnic.VM{}, err
	}
	open, err := o.closeVM(ctx, name)
	if err != nil {
		return vnic.VM{}, err
	}
	settled := true
	defer func() {
		if settled {
			open()
		}
	}()
	m, err := o.migration(ctx, from, to)
	if err == nil {
		err = o.cfg.Migrator.CheckMigration(ctx, m)
	}
	if err == nil {
		err = o.recordMigration(ctx, name, &to)
	}
	if err != nil {
		return vnic.VM{}, err
	}
	err = failpoint.Hit("migrate.recorded")
	if err == nil {
		err = o.cfg.Migrator.Migrate(ctx, m)
	}
	if err != nil {
		o.log.Warn("migration failed", "vm", name, "error", err)
	}
	moved, serr := o.settleMigration(context.WithoutCancel(ctx), m)
	switch {
	case serr != nil:
		settled = false
		o.queue.add("settle migration of vm "+name, func(ctx context.Context) error { return o.settleAgain(ctx, name, open) })
		return from, errors.Join(err, fmt.Errorf("%w; it goes on in the background, and the vm stays closed until then", serr))
	case moved:
		return to, nil
	case err == nil:
		err = fmt.Errorf("the qemu that the vm moved to ended at once: %w", vnic.ErrVMGone)
	}
	return from, err
}

// migratable returns a VM that may be moved, and completes where to.
func (o *Orchestrator) migratable(ctx context.Context, name string, to *vnic.VM) (vnic.VM, error) {
	to.Name, to.Libvirt, to.GuestNetworks = name, "", nil
	if err := checkVM(*to); err != nil {
		return vnic.VM{}, err
	}
	var vm vmRecord
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		vms, err := all[vmRecord](tx, vmPrefix)
		if err != nil {
			return err
		}
		for _, v := range vms {
			switch {
			case v.Name == name:
				vm = v
			case v.QMP == to.QMP || v.Channel == to.Channel:
				return fmt.Errorf("qmp socket %s or channel %s is that of vm %s: %w: give the qemu that waits sockets of its own",
					to.QMP, to.Channel, v.Name, vnic.ErrInUse)
			}
		}
		return nil
	})
	if err != nil {
		return vnic.VM{}, err
	}
	to.GuestNetworks = vm.GuestNetworks
	switch {
	case vm.Name == "" || vm.Removing:
		return vnic.VM{}, fmt.Errorf("it is not registered; see `brfuse vm list`: %w", vnic.ErrUnknownVM)
	case o.cfg.Migrator == nil:
		return vnic.VM{}, fmt.Errorf("this host moves no vms: %w", vnic.ErrUnsupported)
	case vm.Libvirt != "":
		return vnic.VM{}, fmt.Errorf("it is libvirt's domain %s, and `virsh migrate` of a vm with vnics is not supported yet: %w", vm.Libvirt, vnic.ErrUnsupported)
	case vm.Migrating != nil:
		return vnic.VM{}, fmt.Errorf("its migration to %s is not settled yet; see the daemon's log: %w", vm.Migrating.QMP, vnic.ErrInUse)
	case vm.QMP == to.QMP || vm.Channel == to.Channel:
		return vnic.VM{}, fmt.Errorf("qmp socket %s or channel %s is that of the qemu that it runs in: %w: give the one that waits sockets of its own",
			to.QMP, to.Channel, vnic.ErrInvalid)
	}
	return vm.VM, o.seen.usable(name)
}

// closeVM waits until nothing is done to the vNICs of a VM, and keeps it so until
// the returned function is called.
func (o *Orchestrator) closeVM(ctx context.Context, name string) (open func(), err error) {
	var undo []func()
	open = func() {
		for _, f := range undo {
			f()
		}
	}
	defer func() {
		if err != nil {
			open()
		}
	}()
	steps := []func() (func(), error){
		func() (func(), error) { return o.names.Lock(ctx, reconcilePrefix+name) },
		func() (func(), error) {
			o.locks.close(name)
			return func() { o.locks.open(name) }, o.locks.drained(ctx, name)
		},
		func() (func(), error) { return o.rooms.get(name).enterAlone(ctx) },
	}
	for _, step := range steps {
		back, err := step()
		if back != nil {
			undo = append(undo, back)
		}
		if err != nil {
			return nil, fmt.Errorf("wait until nothing else is done to the vm: %w", err)
		}
	}
	idle, err := o.idle(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, p := range idle {
		back, err := o.vnics.Lock(ctx, p.ID)
		if err != nil {
			return nil, fmt.Errorf("wait for vnic %s of pool %s: %w", p.ID, p.pool(), err)
		}
		undo = append(undo, back)
	}
	return open, nil
}

// reconcilePrefix begins the names of locks that are held while a VM is reconciled,
// and while it may not be.
const reconcilePrefix = "reconcile/"

// migration returns the order to move a VM, which is closed. When an attachment is not
// whole, or a vNIC about to go, that is an [vnic.ErrInUse] beside.
func (o *Orchestrator) migration(ctx context.Context, from, to vnic.VM) (vnic.Migration, error) {
	m := vnic.Migration{From: from, To: to}
	list, err := o.records(ctx, from.Name)
	if err != nil {
		return m, err
	}
	var busy error
	for _, r := range list {
		if r.Phase != vnic.PhaseReady {
			busy = fmt.Errorf("attachment %s (%s) is in phase %s: %w: try again once it is gone, or see `brfuse gc`",
				r.ID, describe(r.key()), r.Phase, vnic.ErrInUse)
		}
		m.VNICs = append(m.VNICs, plug(r.Attachment))
	}
	idle, err := o.idle(ctx, from.Name)
	if err != nil {
		return m, err
	}
	for _, p := range idle {
		if p.State != parked {
			busy = fmt.Errorf("vnic %s of pool %s is in state %s: %w: try again", p.ID, p.pool(), p.State, vnic.ErrInUse)
		}
		m.VNICs = append(m.VNICs, vnic.Plug{
			VM: p.VM, ID: p.ID, Network: p.Network, MAC: p.MAC, MTU: p.MTU, Queues: p.Queues, Parked: true,
		})
	}
	return m, busy
}

// recordMigration writes down where a VM is being moved to, nil when it isn't.
func (o *Orchestrator) recordMigration(ctx context.Context, name string, to *vnic.VM) error {
	return o.changeVM(ctx, name, func(vm *vmRecord) { vm.Migrating = to })
}

func (o *Orchestrator) changeVM(ctx context.Context, name string, change func(*vmRecord)) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var vm vmRecord
		rev, err := load(tx, vmPrefix+name, &vm)
		if err != nil {
			return err
		}
		if rev == 0 {
			return fmt.Errorf("vm %s: %w", name, vnic.ErrUnknownVM)
		}
		change(&vm)
		return save(tx, vmPrefix+name, vm)
	})
	return err
}
