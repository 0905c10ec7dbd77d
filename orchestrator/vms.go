package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// AddVM registers a VM; it need not run yet. To add the same one again is no
// error, and changes its GuestNetworks if it has any, for what the guest asks from
// then on; [vnic.AllNetworks] takes earlier ones back. One that differs in more is a [vnic.ErrConflict]; a socket or channel that
// belongs to another VM is an [vnic.ErrInUse], and so is a hypervisor that has
// vNICs of another VM.
func (o *Orchestrator) AddVM(ctx context.Context, vm vnic.VM) error {
	if err := checkVM(vm); err != nil {
		return fmt.Errorf("add vm: %w", err)
	}
	if d, err := vnic.ParseLibvirt(vm.Libvirt); err == nil {
		vm.Libvirt = d.String() // so that one domain has one address
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("add vm %s: %w", vm.Name, err)
	}
	defer done()
	err = o.named(ctx, vmPrefix+vm.Name, func() error { return o.addVM(ctx, vm) })
	return wrap(err, "add vm %s", vm.Name)
}

// maxSocket is the longest path of a unix socket in bytes: sun_path less its
// final zero.
const maxSocket = 107

func checkVM(vm vnic.VM) error {
	if err := vnic.CheckVMName(vm.Name); err != nil {
		return err
	}
	if err := checkHypervisor(vm); err != nil {
		return fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	if !filepath.IsAbs(vm.Channel) && !strings.HasPrefix(vm.Channel, "vsock:") {
		return fmt.Errorf("vm %s: channel %q is neither an absolute path nor vsock:CID:PORT: %w", vm.Name, vm.Channel, vnic.ErrInvalid)
	}
	if err := checkGuestNetworks(vm.GuestNetworks); err != nil {
		return fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	if !filepath.IsAbs(vm.Channel) {
		return nil
	}
	if err := checkSocket("channel", vm.Channel); err != nil {
		return fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	return nil
}

// checkHypervisor checks how a VM's hypervisor is reached.
func checkHypervisor(vm vnic.VM) error {
	if vm.Libvirt != "" {
		if vm.QMP != "" {
			return fmt.Errorf("both qmp socket %s and libvirt domain %s: give one: %w", vm.QMP, vm.Libvirt, vnic.ErrInvalid)
		}
		_, err := vnic.ParseLibvirt(vm.Libvirt)
		return err
	}
	if vm.QMP == "" {
		return fmt.Errorf("neither a qmp socket nor a libvirt domain: %w", vnic.ErrInvalid)
	}
	if !filepath.IsAbs(vm.QMP) {
		return fmt.Errorf("qmp socket %q is no absolute path: %w", vm.QMP, vnic.ErrInvalid)
	}
	return checkSocket("qmp socket", vm.QMP)
}

// checkGuestNetworks checks names of networks, which need not exist yet.
func checkGuestNetworks(names []string) error {
	for i, n := range names {
		switch err := vnic.CheckNetworkName(n); {
		case err != nil:
			return fmt.Errorf("guest network: %w", err)
		case isWord(n) && len(names) > 1:
			return fmt.Errorf("guest networks %v: %q goes with no other: %w", names, n, vnic.ErrInvalid)
		case slices.Contains(names[:i], n):
			return fmt.Errorf("guest networks %v: %q twice: %w", names, n, vnic.ErrInvalid)
		}
	}
	return nil
}

// isWord tells that no network can have that name, because `brfuse vm add` takes it
// for something else.
func isWord(name string) bool { return name == vnic.AllNetworks || name == vnic.NoNetwork }

// guestNetworks returns those of a VM that had old and is added again with names.
func guestNetworks(old, names []string) []string {
	switch {
	case len(names) == 0:
		return old
	case names[0] == vnic.AllNetworks:
		return nil
	}
	return names
}

// checkSocket refuses what can't become a socket. There is none yet before the
// VM runs.
func checkSocket(what, path string) error {
	if len(path) > maxSocket {
		return fmt.Errorf("%s %s has %d bytes, more than the %d of a socket's path; choose a shorter one: %w",
			what, path, len(path), maxSocket, vnic.ErrInvalid)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s %s is there and no socket; give the path that QEMU listens on: %w", what, path, vnic.ErrInvalid)
	}
	return nil
}

func (o *Orchestrator) addVM(ctx context.Context, vm vnic.VM) error {
	var fresh bool
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		if fresh, err = addVM(tx, vm); err != nil {
			return err
		}
		return o.claimVM(tx, vm.Name)
	})
	if err != nil {
		return err
	}
	if err := o.register(ctx, vm); err != nil {
		if !fresh {
			return err
		}
		if rerr := o.forgetVM(context.WithoutCancel(ctx), vm.Name); rerr != nil {
			return fmt.Errorf("%w; undo: %w", err, rerr)
		}
		return err
	}
	if fresh {
		if err := o.checkStranger(ctx, vm.Name); err != nil {
			if rerr := o.removeVM(context.WithoutCancel(ctx), vm.Name, true); rerr != nil {
				return fmt.Errorf("%w; undo: %w", err, rerr)
			}
			return err
		}
	}
	o.reconcileSoon(vm.Name)
	return nil
}

// checkStranger refuses a hypervisor that has a vNIC of another VM: then it is
// that VM's, by a second socket. One that can't be asked may be anything.
func (o *Orchestrator) checkStranger(ctx context.Context, name string) error {
	ports, err := o.ports(ctx, name)
	if err != nil {
		o.log.Warn("vm is added unchecked: its vnics may be those of another vm", "vm", name, "error", err)
		return nil
	}
	for _, p := range ports {
		owner, known, err := o.owner(ctx, p.ID)
		if err != nil {
			return err
		}
		if known && owner != name {
			return fmt.Errorf("its QEMU is that of %[1]s, which has vnic %[2]s: use %[1]s, or `brfuse vm rm %[1]s` first: %[3]w",
				owner, p.ID, vnic.ErrInUse)
		}
	}
	return nil
}

// register tells both halves of a VM.
func (o *Orchestrator) register(ctx context.Context, vm vnic.VM) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.VM)
	defer cancel()
	if err := o.cfg.VMs.AddVM(ctx, vm); err != nil {
		return late(ctx, "register", o.cfg.Deadlines.VM, err)
	}
	o.mine.m.Store(vm.Name, true)
	return nil
}

// addVM stores a VM and tells whether it is new. One whose removal did not end
// is taken back.
func addVM(tx store.Tx, vm vnic.VM) (fresh bool, err error) {
	vms, err := all[vmRecord](tx, vmPrefix)
	if err != nil {
		return false, err
	}
	var same vmRecord
	for _, old := range vms {
		switch {
		case old.Name == vm.Name && (old.QMP != vm.QMP || old.Libvirt != vm.Libvirt || old.Channel != vm.Channel):
			return false, fmt.Errorf("it has %s and channel %s, not %s and %s; remove it first by `brfuse vm rm %s`: %w",
				hypervisor(old.VM), old.Channel, hypervisor(vm), vm.Channel, vm.Name, vnic.ErrConflict)
		case old.Name == vm.Name:
			same = old
		case old.Migrating != nil && (old.Migrating.QMP == vm.QMP || old.Migrating.Channel == vm.Channel):
			return false, fmt.Errorf("vm %s is being moved to it: %w", old.Name, vnic.ErrInUse)
		case old.QMP == vm.QMP && old.Libvirt == vm.Libvirt:
			return false, fmt.Errorf("%s is that of vm %s; give each vm its own: %w", hypervisor(vm), old.Name, vnic.ErrInUse)
		case old.Channel == vm.Channel:
			return false, fmt.Errorf("channel %s is that of vm %s; give each vm its own: %w", vm.Channel, old.Name, vnic.ErrInUse)
		}
	}
	if same.Migrating != nil {
		return false, fmt.Errorf("its migration is not settled: %w: try again", vnic.ErrInUse)
	}
	vm.GuestNetworks = guestNetworks(same.GuestNetworks, vm.GuestNetworks)
	if same.Equal(vm) && !same.Removing {
		return false, nil
	}
	return same.Name == "", save(tx, vmPrefix+vm.Name, vmRecord{VM: vm})
}

// claimVM makes a VM this hypervisor's among all that share the store.
func (o *Orchestrator) claimVM(tx store.Tx, name string) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	if err := o.joined(tx); err != nil {
		return err
	}
	it, err := tx.Get(fabric.VMPrefix + name)
	switch {
	case err != nil:
		return err
	case !it.Exists():
		return tx.Put(it.Key, []byte(o.Hypervisor()))
	case string(it.Value) != o.Hypervisor():
		return fmt.Errorf("a vm of that name is on hypervisor %s; give it another name, or `brfuse vm rm %s` there: %w", it.Value, name, vnic.ErrInUse)
	}
	return nil
}

// hypervisor names how a VM's hypervisor is reached.
func hypervisor(vm vnic.VM) string {
	if vm.Libvirt != "" {
		return "libvirt domain " + vm.Libvirt
	}
	return "qmp socket " + vm.QMP
}

// RemoveVM forgets a VM, and what is reserved for it. While it has attachments the
// error is [vnic.ErrInUse], unless forced: then they are detached first. When there is no such VM, the
// error is [vnic.ErrUnknownVM]. A removal that fails has closed the VM to new
// attachments; remove it again, or add it again to go back.
func (o *Orchestrator) RemoveVM(ctx context.Context, name string, force bool) error {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("remove vm %s: %w", name, err)
	}
	defer done()
	err = o.named(ctx, vmPrefix+name, func() error { return o.removeVM(ctx, name, force) })
	return wrap(err, "remove vm %s", name)
}

func (o *Orchestrator) removeVM(ctx context.Context, name string, force bool) error {
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var vm vmRecord
		rev, err := load(tx, vmPrefix+name, &vm)
		if err != nil {
			return err
		}
		if rev == 0 {
			return fmt.Errorf("it is not registered; see `brfuse vm list`: %w", vnic.ErrUnknownVM)
		}
		if !force {
			err = unused(tx, "vm", func(a vnic.Attachment) bool { return a.Request.VM == name })
			if err != nil {
				return err
			}
		}
		if vm.Migrating != nil {
			return fmt.Errorf("its migration is not settled: %w: try again", vnic.ErrInUse)
		}
		vm.Removing = true
		return save(tx, vmPrefix+name, vm)
	})
	if err != nil {
		return err
	}
	if err := o.dropPools(ctx, func(k poolID) bool { return k.vm == name }); err != nil {
		return err
	}
	list, err := o.records(ctx, name)
	if err != nil {
		return err
	}
	err = forEach(list, func(r record) error {
		_, err := o.Detach(ctx, r.ID)
		return err
	})
	if err != nil {
		return err
	}
	if err := o.dropReservations(ctx, name); err != nil {
		return err
	}
	return o.forgetVM(ctx, name)
}

func (o *Orchestrator) forgetVM(ctx context.Context, name string) error {
	rctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.VM)
	defer cancel()
	if err := o.cfg.VMs.RemoveVM(rctx, name); err != nil && !errors.Is(err, vnic.ErrUnknownVM) {
		return late(rctx, "forget", o.cfg.Deadlines.VM, err)
	}
	o.mine.m.Delete(name)
	o.seen.set(name, false)
	o.seen.setAgent(name, false)
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := tx.Delete(vmPrefix + name); err != nil || o.cfg.Cluster == nil {
			return err
		}
		it, err := tx.Get(fabric.VMPrefix + name)
		if err != nil || string(it.Value) != o.Hypervisor() { // it may be another's by now
			return err
		}
		return tx.Delete(it.Key)
	})
	return err
}

// restoreVM tells both halves of a VM after a restart.
func (o *Orchestrator) restoreVM(ctx context.Context, name string) error {
	return o.named(ctx, vmPrefix+name, func() error { return o.restoreVMLocked(ctx, name) })
}

func (o *Orchestrator) restoreVMLocked(ctx context.Context, name string) error {
	var vm vmRecord
	var rev int64
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		rev, err = load(tx, vmPrefix+name, &vm)
		return err
	})
	if err != nil || rev == 0 {
		return err
	}
	if vm.Migrating != nil {
		if err := o.resumeMigration(ctx, vm); err != nil {
			return err
		}
		o.locks.open(name)
		return nil
	}
	if err := o.register(ctx, vm.VM); err != nil {
		return err
	}
	o.reconcileSoon(name)
	return nil
}

// VMs returns all VMs in the order of their names.
func (o *Orchestrator) VMs(ctx context.Context) ([]vnic.VM, error) {
	var list []vnic.VM
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = all[vnic.VM](tx, vmPrefix)
		return err
	})
	return list, wrap(err, "list vms")
}

// VM returns a VM, or [vnic.ErrUnknownVM].
func (o *Orchestrator) VM(ctx context.Context, name string) (vnic.VM, error) {
	var vm vmRecord
	var rev int64
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		rev, err = load(tx, vmPrefix+name, &vm)
		return err
	})
	if err == nil && rev == 0 {
		err = fmt.Errorf("it is not registered; see `brfuse vm list`: %w", vnic.ErrUnknownVM)
	}
	return vm.VM, wrap(err, "vm %s", name)
}
