package hostside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// backendLimit is for a hypervisor to let go of what it has of a device that is gone.
const backendLimit = 10 * time.Second

// Unplug takes a vNIC from a VM: its bridge port first, so that traffic stops,
// then the device, the tap, and the packet filter last. When the VM is gone, so
// is the device, and the rest follows. With an empty vm it removes the tap of no
// VM. What is gone is no error; repeating an Unplug finishes it.
//
// Errors: [vnic.ErrUnknownVM].
func (h *Host) Unplug(ctx context.Context, vmName string, id vnic.ID) error {
	if _, err := vnic.ParseID(string(id)); err != nil {
		return fmt.Errorf("unplug vnic: %w", err)
	}
	unlock, err := h.ids.Lock(ctx, id)
	if err == nil {
		defer unlock()
		err = h.unplugLocked(ctx, vmName, id)
	}
	if err != nil {
		return fmt.Errorf("unplug vnic %s: %w", id, err)
	}
	return nil
}

func (h *Host) unplugLocked(ctx context.Context, vmName string, id vnic.ID) error {
	var v *vm
	if vmName != "" {
		var err error
		if v, err = h.vm(vmName); err != nil {
			return err
		}
	}
	if err := h.links.Leave(ctx, id); err != nil {
		return err
	}
	if v != nil {
		if err := h.unplugDevice(ctx, v, id); err != nil {
			return err
		}
	}
	// It went with the hypervisor's last descriptor, or it persists, as libvirt's do, or
	// someone else holds it.
	if err := h.links.DeleteTap(ctx, id); err != nil {
		return err
	}
	if err := failpoint.Hit("unplug.tap"); err != nil {
		return err
	}
	return h.unfilter(ctx, id)
}

// unplugDevice takes a device from the VM. When the VM is gone, so is the device.
// Where the hypervisor lets a device go by steps, the tap is deleted between them.
func (h *Host) unplugDevice(ctx context.Context, v *vm, id vnic.ID) error {
	end := v.leaving.begin()
	defer end()
	err := v.do(ctx, func(b backend.VM) error {
		d, ok := b.(backend.Detacher)
		if !ok {
			return b.Unplug(ctx, id)
		}
		if err := d.Detach(ctx, id); err != nil {
			return err
		}
		if err := h.links.DeleteTap(ctx, id); err != nil {
			h.log.Debug("tap stays until its hypervisor lets go of it", "id", id, "error", err)
		}
		// The hypervisor polls what is gone until then, whatever became of ctx.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backendLimit)
		defer cancel()
		return b.Unplug(ctx, id)
	})
	if errors.Is(err, vnic.ErrVMGone) {
		return nil
	}
	return err
}
