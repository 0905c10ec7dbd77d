package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// Waits between two device_del of one device. The button of native hotplug
// must not be pressed twice within five seconds: that takes the first back.
const (
	busyWait  = 100 * time.Millisecond // the guest is busy; doubles up to busyMost
	busyMost  = 2 * time.Second
	againWait = 10 * time.Second // asked for, and nothing happens
)

// errLeaving tells a waiter that the device is being removed, or is already.
var errLeaving = errors.New("the device is leaving")

// errGuestRefused is returned when the guest reports that it can't let go of a device.
var errGuestRefused = errors.New("the guest refuses to release the device")

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

// Detach implements [backend.Detacher].
func (v *VM) Detach(ctx context.Context, id vnic.ID) error {
	unlock, err := v.nics.lock(ctx, id)
	if err == nil {
		defer unlock()
		if err = v.deleteDevice(ctx, id); err == nil {
			v.nics.setDetached(id, true)
		}
	}
	if err != nil {
		return fmt.Errorf("detach vnic %s from vm %s: %w", id, v.name, err)
	}
	return nil
}

// remove removes device and backend. Hold the lock of id.
func (v *VM) remove(ctx context.Context, id vnic.ID) error {
	if !v.nics.isDetached(id) {
		if err := v.deleteDevice(ctx, id); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("unplug.device"); err != nil {
		return err
	}
	if err := v.deleteNetdev(ctx, id); err != nil {
		return err
	}
	v.nics.setDetached(id, false)
	return failpoint.Hit("unplug.netdev")
}

// deleteDevice asks the guest to let go, again when it is busy, and returns
// when the device is gone.
func (v *VM) deleteDevice(ctx context.Context, id vnic.ID) error {
	gone, cancel := v.nics.await(id) // before the question: the event may be quick
	defer cancel()
	busy := busyWait
	for {
		v.nics.update(id, func(d *nic) { d.removing = true })
		wait := againWait
		switch err := v.run(ctx, "device_del", args{"id": id.DeviceID()}); {
		case errors.Is(err, ErrDeviceNotFound):
			v.release(id)
			v.nics.gone(id)
			return nil
		case guestBusy(err):
			wait, busy = busy, min(2*busy, busyMost)
		case err != nil && !unplugPending(err):
			return err
		}
		if again, err := v.awaitGone(ctx, id, gone, wait); !again {
			return err
		}
	}
}

// awaitGone waits for the guest's word; again says that it is time to ask once more.
func (v *VM) awaitGone(ctx context.Context, id vnic.ID, gone <-chan error, wait time.Duration) (again bool, err error) {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case err := <-gone:
			if !errors.Is(err, errLeaving) {
				return false, err
			}
			if left, err := v.hasLeft(ctx, id); left || err != nil {
				return false, err
			}
		case <-t.C:
			return true, nil
		case <-v.conn.Done():
			return false, v.conn.Err()
		case <-ctx.Done():
			return false, fmt.Errorf("await the guest's release of the device: %w", context.Cause(ctx))
		}
	}
}

// hasLeft looks whether the device is gone, and notes that.
func (v *VM) hasLeft(ctx context.Context, id vnic.ID) (bool, error) {
	var properties []property
	look := qomList(devicePath(id), &properties)
	if err := v.conn.ask(ctx, look); err != nil || look.found {
		return false, err
	}
	v.release(id)
	v.nics.left(id)
	return true, nil
}

func (v *VM) deleteNetdev(ctx context.Context, id vnic.ID) error {
	err := v.run(ctx, "netdev_del", args{"id": id.NetdevID()})
	if errors.Is(err, ErrDeviceNotFound) {
		return nil
	}
	return err
}
