package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// undoLimit bounds undoing a plug: a native unplug takes over five seconds.
const undoLimit = 15 * time.Second

// slotTries bounds how many slots a plug tries when others take them meanwhile.
const slotTries = 8

// errLeft is returned when a device was removed while it was being plugged.
var errLeft = errors.New("the guest removed the device at once")

// Plug implements [backend.VM].
func (v *VM) Plug(ctx context.Context, n backend.NIC) (string, error) {
	slot, err := v.plug(ctx, n)
	if err != nil {
		return "", fmt.Errorf("plug vnic %s into vm %s: %w", n.ID, v.name, err)
	}
	return slot, nil
}

func (v *VM) plug(ctx context.Context, n backend.NIC) (string, error) {
	if err := check(n); err != nil {
		return "", err
	}
	unlock, err := v.nics.lock(ctx, n.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	if d, ok := v.nics.get(n.ID); ok {
		if d.backend && !d.removing {
			return d.slot, nil
		}
		if err := v.remove(ctx, n.ID); err != nil {
			return "", fmt.Errorf("remove its incomplete predecessor: %w", err)
		}
	}
	s, err := v.reserve(ctx, n.ID)
	if err != nil {
		return "", err
	}
	slot, err := v.add(ctx, n, s)
	if err != nil {
		return "", v.undo(ctx, n.ID, err)
	}
	return slot, nil
}

func check(n backend.NIC) error {
	switch {
	case n.Queues < 1 || n.Queues > vnic.MaxQueues:
		return fmt.Errorf("queues %d is not in 1-%d: %w", n.Queues, vnic.MaxQueues, vnic.ErrInvalid)
	case len(n.Files) != n.Queues:
		return fmt.Errorf("%d tap files for %d queues: %w", len(n.Files), n.Queues, vnic.ErrInvalid)
	case len(n.Vhost) != 0 && len(n.Vhost) != n.Queues:
		return fmt.Errorf("%d vhost files for %d queues: %w", len(n.Vhost), n.Queues, vnic.ErrInvalid)
	case n.MAC.IsZero():
		return fmt.Errorf("no mac: %w", vnic.ErrInvalid)
	}
	return nil
}

// reserve takes a slot, and looks at QEMU anew only when none seems free.
func (v *VM) reserve(ctx context.Context, id vnic.ID) (*slots.Slot, error) {
	if err := v.conn.Err(); err != nil {
		return nil, err
	}
	if s, ok := v.slots.Reserve(devicePath(id)); ok {
		return s, nil
	}
	if err := v.refresh(ctx); err != nil {
		return nil, err
	}
	if s, ok := v.slots.Reserve(devicePath(id)); ok {
		return s, nil
	}
	used, total, _ := v.slots.Counts()
	return nil, &vnic.NoSlotError{VM: v.name, Used: used, Total: total}
}

// add makes backend and device. On error something may be left: undo it.
func (v *VM) add(ctx context.Context, n backend.NIC, s *slots.Slot) (string, error) {
	if err := v.addNetdev(ctx, n); err != nil {
		return "", err
	}
	if err := failpoint.Hit("plug.netdev"); err != nil {
		return "", err
	}
	s, err := v.addDevice(ctx, n, s)
	if err != nil {
		return "", err
	}
	if err := failpoint.Hit("plug.device"); err != nil {
		return "", err
	}
	v.slots.Land(devicePath(n.ID))
	lost, ok := v.nics.added(n.ID)
	if lost {
		d, _ := v.nics.get(n.ID)
		return s.String(), v.addAgain(ctx, n.ID, d)
	}
	if !ok {
		return "", errLeft
	}
	return s.String(), nil
}

// undo takes away what a failed plug left, whatever became of ctx.
func (v *VM) undo(ctx context.Context, id vnic.ID, cause error) error {
	v.slots.Land(devicePath(id))
	v.nics.update(id, func(d *nic) { d.adding = false })
	if v.conn.Err() != nil {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := v.remove(ctx, id); err != nil {
		return errors.Join(cause, fmt.Errorf("undo: %w", err))
	}
	return cause
}

// addNetdev makes the backend. A backend that is there has no device, and the
// descriptors of a tap that may be gone: it makes way.
func (v *VM) addNetdev(ctx context.Context, n backend.NIC) error {
	err := v.tryNetdev(ctx, n)
	if !duplicateID(err) {
		return err
	}
	v.log.Info("backend of an earlier plug makes way", "id", n.ID)
	if err := v.deleteNetdev(ctx, n.ID); err != nil {
		return err
	}
	return v.tryNetdev(ctx, n)
}

// tryNetdev passes the descriptors and makes the backend, all in one go: QEMU
// runs commands in order, and a backend without its descriptors fails.
func (v *VM) tryNetdev(ctx context.Context, n backend.NIC) error {
	a := args{"type": "tap", "id": n.ID.NetdevID()}
	var names []string
	var calls []*Call
	pass := func(kind string, files []*os.File) error {
		var here []string
		for _, f := range files {
			name := fmt.Sprintf("%s-%s%d", n.ID.DeviceID(), kind, v.names.Add(1))
			call, err := v.conn.Start(ctx, qmp.Command{Execute: "getfd", Args: args{"fdname": name}}, f)
			if err != nil {
				return err
			}
			calls, here = append(calls, call), append(here, name)
		}
		names = append(names, here...)
		a[kind+"s"] = strings.Join(here, ":")
		return nil
	}
	err := pass("fd", n.Files)
	if len(n.Vhost) != 0 && err == nil {
		a["vhost"] = true
		err = pass("vhostfd", n.Vhost)
	}
	if err == nil {
		var call *Call
		if call, err = v.conn.Start(ctx, qmp.Command{Execute: "netdev_add", Args: a}); err == nil {
			calls = append(calls, call)
		}
	}
	for _, call := range calls { // the first error is the cause of the others
		if _, e := call.Wait(ctx); err == nil {
			err = e
		}
	}
	if err != nil {
		v.dropFiles(ctx, names)
	}
	return err
}

// dropFiles closes passed descriptors that no backend took over.
func (v *VM) dropFiles(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	queries := make([]*query, len(names))
	for i, name := range names {
		queries[i] = &query{cmd: "closefd", args: args{"fdname": name}, into: &struct{}{}}
	}
	if err := v.conn.ask(ctx, queries...); err != nil {
		v.log.Debug("descriptors stay in QEMU until the connection ends", "error", err)
	}
}

// addDevice makes the device in s, or in another slot when s was taken behind
// our back. It returns the slot that it took.
func (v *VM) addDevice(ctx context.Context, n backend.NIC, s *slots.Slot) (*slots.Slot, error) {
	var err error
	for range slotTries {
		a := deviceArgs(n, s, v.slots.Vectors(s, n.Queues, v.traits.cpus))
		used, _, _ := v.slots.Counts()
		v.traits.trim(a, len(n.Vhost) != 0, used)
		v.nics.put(n.ID, nic{mac: n.MAC, slot: s.String(), backend: true, adding: true, args: a})
		if err = v.run(ctx, "device_add", a); !slotUnusable(err) && !guestBusy(err) {
			return s, err
		}
		v.log.Info("slot refused, trying another", "id", n.ID, "slot", s.String(), "error", err)
		v.slots.Refused(s)
		if e := v.refresh(ctx); e != nil {
			return nil, e
		}
		var e error
		if s, e = v.reserve(ctx, n.ID); e != nil {
			return nil, errors.Join(e, err)
		}
	}
	return nil, fmt.Errorf("%d slots refused: %w", slotTries, err)
}

// deviceArgs: no option ROM, since 31 of them don't fit a bridge's memory
// window; no legacy interface, since its I/O ports are scarcer still.
func deviceArgs(n backend.NIC, s *slots.Slot, vectors int) args {
	a := args{
		"driver":         "virtio-net-pci",
		"id":             n.ID.DeviceID(),
		"netdev":         n.ID.NetdevID(),
		"mac":            n.MAC.String(),
		"bus":            s.Bus,
		"addr":           fmt.Sprintf("%x", s.Device),
		"vectors":        vectors,
		"disable-legacy": "on",
		"romfile":        "",
	}
	if n.Queues > 1 {
		a["mq"] = true
	}
	if n.MTU != 0 {
		a["host_mtu"] = n.MTU
	}
	return a
}
