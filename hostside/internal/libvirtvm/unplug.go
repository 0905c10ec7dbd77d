package libvirtvm

import (
	"context"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// Waits between two requests to detach one device. The button of native hotplug
// must not be pressed twice within five seconds: that takes the first back.
const (
	busyWait = 100 * time.Millisecond // the guest is busy; doubles up to busyMost
	busyMost = 2 * time.Second
	// Asked for, and nothing happens: firmware and a kernel that boots overlook an
	// ACPI request. A repeated one does no harm.
	acpiWait   = 2 * time.Second
	nativeWait = 10 * time.Second
)

// Unplug implements [backend.VM].
func (v *VM) Unplug(ctx context.Context, id vnic.ID) error {
	unlock, err := v.nics.lock(ctx, id)
	if err == nil {
		defer unlock()
		err = v.remove(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("unplug vnic %s from vm %s: %w", id, v.name, err)
	}
	return nil
}

// remove removes the device, whoever knows of it. Hold the lock of id.
func (v *VM) remove(ctx context.Context, id vnic.ID) error {
	if err := v.detach(ctx, id); err != nil {
		return err
	}
	if v.nics.isOrphan(id) {
		if err := v.removeOrphan(ctx, id); err != nil {
			return err
		}
	}
	v.forget(id)
	// libvirt removes device and backend in one step: these are behind both.
	if err := failpoint.Hit("unplug.device"); err != nil {
		return err
	}
	return failpoint.Hit("unplug.netdev")
}

// detach asks the guest to let go, again when it is busy or doesn't react, and
// returns once libvirt has no such device.
func (v *VM) detach(ctx context.Context, id vnic.ID) error {
	gone, cancel := v.nics.await(id) // before the question: the event may be quick
	defer cancel()
	busy := busyWait
	for {
		v.nics.update(id, func(d *nic) { d.removing = true })
		wait := v.again()
		err := v.do(ctx, func(c *client) error {
			return c.call(ctx, func() error { return c.lv.DomainDetachDeviceAlias(v.run, alias(id), uint32(live)) })
		})
		switch {
		case noDevice(err):
			return nil
		case guestBusy(err):
			wait, busy = busy, min(2*busy, busyMost)
		case err != nil && !unplugPending(err):
			return err
		}
		left, err := v.awaitLeft(ctx, id, gone, wait)
		if left || err != nil {
			return err
		}
	}
}

// awaitLeft waits for libvirt's word on a device, and looks whether it is true.
// Without error and without having left, it is time to ask once more.
func (v *VM) awaitLeft(ctx context.Context, id vnic.ID, gone <-chan error, wait time.Duration) (left bool, err error) {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case err := <-gone:
			if err != nil {
				return false, err
			}
			if _, there, err := v.has(ctx, id); !there || err != nil {
				return err == nil, err
			}
		case <-t.C:
			return false, nil
		case <-v.ended:
			return false, v.err()
		case <-ctx.Done():
			return false, fmt.Errorf("await the guest's release of the device: %w", context.Cause(ctx))
		}
	}
}

// again is how long a request to let go of a device may go unheard.
func (v *VM) again() time.Duration {
	if _, _, acpi := v.slots.Counts(); acpi {
		return acpiWait
	}
	return nativeWait
}
