package hostside

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// seated is implemented by a backend whose guest can be moved.
type seated interface{ Seat() *qmpvm.Seat }

// CheckMigration tells whether a migration can be begun, and changes nothing.
//
// Errors: [vnic.ErrUnknownVM]; [vnic.ErrUnsupported] for a VM of libvirt or with a macvtap;
// [vnic.ErrVMGone] when one of both processes is not there; [vnic.ErrInvalid] when
// both are one, or one is not in the state for it; [vnic.ErrDiffers] when the
// machines do; [vnic.ErrConflict] when the VM has other vNICs than the order says.
func (h *Host) CheckMigration(ctx context.Context, m vnic.Migration) error {
	v, err := h.vm(m.From.Name)
	if err == nil {
		err = h.checkMovable(m.VNICs)
	}
	if err != nil {
		return err
	}
	if err := v.leaving.awaitNone(ctx); err != nil {
		return err
	}
	to, err := qmpvm.DialSeat(ctx, m.To, h.log)
	if err != nil {
		return fmt.Errorf("the qemu to move to: %w", err)
	}
	defer func() { _ = to.Close() }()
	return v.do(ctx, func(b backend.VM) error {
		s, ok := b.(seated)
		if !ok {
			return fmt.Errorf("vm %s: only a vm that is reached by QMP can be moved: %w", m.From.Name, vnic.ErrUnsupported)
		}
		_, err := checkSeats(ctx, s.Seat(), to, m)
		return err
	})
}

// checkSeats returns the devices of the VM's vNICs if all is ready for a migration.
func checkSeats(ctx context.Context, from, to *qmpvm.Seat, m vnic.Migration) (map[vnic.ID]qmpvm.Device, error) {
	if err := checkStates(ctx, from, to, m); err != nil {
		return nil, err
	}
	here, err := from.Machine(ctx)
	if err != nil {
		return nil, err
	}
	there, err := to.Machine(ctx)
	if err == nil {
		err = here.Compare(there)
	}
	if err != nil {
		return nil, err
	}
	has, err := to.Devices(ctx)
	if err != nil {
		return nil, err
	}
	for id := range has {
		return nil, fmt.Errorf("the qemu on %s has vnic %s already: %w: start it anew", m.To.QMP, id, vnic.ErrInvalid)
	}
	devices, err := from.Devices(ctx)
	if err != nil {
		return nil, err
	}
	return devices, sameVNICs(devices, m.VNICs)
}

func checkStates(ctx context.Context, from, to *qmpvm.Seat, m vnic.Migration) error {
	state, err := to.State(ctx)
	switch {
	case err != nil:
		return err
	case state != qmpvm.StateWaiting:
		return fmt.Errorf("the qemu on %s does not wait for a guest, its state is %s%s: %w: start one with -incoming defer",
			m.To.QMP, state, sameProcess(from, to), vnic.ErrInvalid)
	}
	if state, err = from.State(ctx); err != nil {
		return err
	}
	if state != qmpvm.StateRunning {
		return fmt.Errorf("the vm does not run, its state is %s: %w: have it go on first", state, vnic.ErrInvalid)
	}
	return nil
}

// sameProcess says so when both sockets seem to be one process's.
func sameProcess(from, to *qmpvm.Seat) string {
	a, aerr := from.PID()
	b, berr := to.PID()
	if aerr != nil || berr != nil || a != b {
		return ""
	}
	return fmt.Sprintf(", and it seems to be the one that the vm runs in, process %d", a)
}

// sameVNICs tells whether a VM has the vNICs of the order, and no others.
func sameVNICs(devices map[vnic.ID]qmpvm.Device, plugs []vnic.Plug) error {
	rest := maps.Clone(devices)
	for _, p := range plugs {
		if _, ok := rest[p.ID]; !ok {
			return fmt.Errorf("the vm lacks vnic %s: %w: try again, or see `brfuse gc`", p.ID, vnic.ErrConflict)
		}
		delete(rest, p.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(rest)) {
		return fmt.Errorf("the vm still has vnic %s, which is being unplugged: %w: try again, or see `brfuse gc`", id, vnic.ErrConflict)
	}
	return nil
}

// Migrate moves the guest of a VM to a process that waits for it. It forgets the VM,
// and gives each vNIC a device there, with a tap that is down and in no bridge. Once
// the guest runs there those taps take the place of the old ones, and the neighbours
// are told. Call [Host.SettleMigration] next, whatever came of it, and then register
// the VM as that says.
func (h *Host) Migrate(ctx context.Context, m vnic.Migration) error {
	unlock, err := h.lockAll(ctx, m.VNICs)
	if err != nil {
		return err
	}
	defer unlock()
	h.setMoving(m.From.Name, true)
	if err := h.RemoveVM(ctx, m.From.Name); err != nil { // a QMP socket has one client
		return err
	}
	from, to, err := h.seats(ctx, m)
	if err != nil {
		return err
	}
	defer func() { _, _ = from.Close(), to.Close() }()
	devices, err := checkSeats(ctx, from, to, m)
	if err != nil {
		return err
	}
	for _, p := range m.VNICs {
		if err := h.plugComing(ctx, to, devices[p.ID], p); err != nil {
			return err
		}
	}
	if err := from.Prepare(ctx, to); err != nil {
		return err
	}
	if err := failpoint.Hit("migrate.plugged"); err != nil {
		return err
	}
	st, err := from.MoveTo(ctx, to)
	if err != nil {
		return err
	}
	moved := time.Now()
	if err := failpoint.Hit("migrate.moved"); err != nil {
		return err
	}
	err = h.arrive(ctx, to, m.VNICs)
	h.log.Info("vm has moved", "vm", m.From.Name, "qmp", m.To.QMP, "vnics", len(m.VNICs), "milliseconds", st.Total,
		"stopped", st.Downtime, "wired", time.Since(moved))
	return err
}

// lockAll keeps other operations from all vNICs of an order.
func (h *Host) lockAll(ctx context.Context, plugs []vnic.Plug) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, f := range held {
			f()
		}
	}
	for _, p := range plugs {
		one, err := h.ids.Lock(ctx, p.ID)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("vnic %s: wait for another operation: %w", p.ID, err)
		}
		held = append(held, one)
	}
	return unlock, nil
}

// setMoving notes that a VM is being moved, and so not registered for a while.
func (h *Host) setMoving(name string, is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if is {
		h.moving[name] = true
	} else {
		delete(h.moving, name)
	}
}

func (h *Host) isMoving(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.moving[name]
}

// seats connects to both processes.
func (h *Host) seats(ctx context.Context, m vnic.Migration) (from, to *qmpvm.Seat, err error) {
	if from, err = qmpvm.DialSeat(ctx, m.From, h.log); err != nil {
		return nil, nil, err
	}
	if to, err = qmpvm.DialSeat(ctx, m.To, h.log); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the qemu to move to: %w", err), from.Close())
	}
	return from, to, nil
}

// plugComing gives the process that waits a device like d, and a tap.
func (h *Host) plugComing(ctx context.Context, to *qmpvm.Seat, d qmpvm.Device, p vnic.Plug) (err error) {
	tap, err := h.links.OpenComing(ctx, p)
	if err != nil {
		return fmt.Errorf("tap of vnic %s for its next qemu: %w", p.ID, err)
	}
	defer func() { err = errors.Join(err, tap.Close()) }()
	return to.Plug(ctx, d, nic(p, tap))
}

// arrive gives the taps of a VM that has moved their places: names, filters and
// bridges. It may be repeated. A vNIC that can't be wired keeps no other from it.
func (h *Host) arrive(ctx context.Context, to *qmpvm.Seat, plugs []vnic.Plug) error {
	var errs []error
	for _, p := range plugs {
		if err := h.comeIn(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("wire vnic %s after the move: %w", p.ID, err))
		}
	}
	return errors.Join(append(errs, to.Announce(ctx))...)
}

func (h *Host) comeIn(ctx context.Context, p vnic.Plug) error {
	if err := h.links.Come(ctx, p.ID); err != nil || p.Parked {
		return err
	}
	n, err := h.network(p.Network)
	if err != nil {
		return err
	}
	return h.admit(ctx, n, p)
}
