package hostside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// Park takes a plugged vNIC out of its network: its tap is down and in no bridge,
// what waited in it is dropped, and its packet filter, published ports and limits
// are gone. The device stays in the VM, and the hypervisor is not asked. That it is
// parked or gone is no error; repeating a Park finishes it.
//
// Park it before the guest takes it from its pod: a virtio device whose link is down
// goes on receiving, and would hand that to the next pod that sets it up.
//
// Errors: [vnic.ErrUnknownVM].
func (h *Host) Park(ctx context.Context, vmName string, id vnic.ID) error {
	if _, err := vnic.ParseID(string(id)); err != nil {
		return fmt.Errorf("park vnic: %w", err)
	}
	unlock, err := h.ids.Lock(ctx, id)
	if err == nil {
		defer unlock()
		if _, err = h.vm(vmName); err == nil {
			err = h.parkLocked(ctx, id)
		}
	}
	if err != nil {
		return fmt.Errorf("park vnic %s of vm %s: %w", id, vmName, err)
	}
	return nil
}

// parkLocked stops traffic before it takes the filter away.
func (h *Host) parkLocked(ctx context.Context, id vnic.ID) error {
	if err := h.links.Park(ctx, id); err != nil {
		return err
	}
	if err := failpoint.Hit("park.bridge"); err != nil {
		return err
	}
	if err := h.unfilter(ctx, id); err != nil {
		return err
	}
	return failpoint.Hit("park.guard")
}

// Unpark makes the tap of a parked vNIC a port of its network's bridge, filter,
// published ports and limits first. The hypervisor is not asked. When it fails, the
// vNIC is parked again. It may be repeated as [Host.Plug] may; one that is repeated
// and fails leaves the vNIC in its bridge.
//
// Errors: those of [Host.Plug], and [vnic.ErrNotFound] when there is no tap, or one
// with another MTU than p's.
func (h *Host) Unpark(ctx context.Context, p vnic.Plug) error {
	p, n, _, err := h.checkPlug(p)
	if err != nil {
		return fmt.Errorf("unpark vnic %s: %w", p.ID, err)
	}
	unlock, err := h.ids.Lock(ctx, p.ID)
	if err == nil {
		defer unlock()
		err = h.unparkLocked(ctx, n, p)
	}
	if err != nil {
		return fmt.Errorf("unpark vnic %s of vm %s: %w", p.ID, p.VM, err)
	}
	return nil
}

func (h *Host) unparkLocked(ctx context.Context, n vnic.Network, p vnic.Plug) error {
	mtu, joined, err := h.links.TapOf(ctx, p.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, vnic.ErrNotFound)
	case err != nil:
		return err
	case mtu != p.MTU:
		return fmt.Errorf("its tap has mtu %d, not %d: %w", mtu, p.MTU, vnic.ErrNotFound)
	}
	if err = h.admit(ctx, n, p); err == nil || joined {
		return err
	}
	steps := undo{log: h.log.With("id", p.ID, "vm", p.VM)}
	steps.add("park", func(ctx context.Context) error { return h.parkLocked(ctx, p.ID) })
	steps.run(ctx)
	if _, _, gone := h.links.TapOf(ctx, p.ID); errors.Is(gone, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, vnic.ErrNotFound)
	}
	return err
}

// admit lets a vNIC into its network: what it may do first, then the bridge.
func (h *Host) admit(ctx context.Context, n vnic.Network, p vnic.Plug) error {
	if err := h.filter(ctx, n, p, &undo{}); err != nil {
		return err
	}
	if err := failpoint.Hit("unpark.guard"); err != nil {
		return err
	}
	if err := h.links.Join(ctx, p.ID.TapName(), n, p.MAC); err != nil {
		return err
	}
	return failpoint.Hit("unpark.bridge")
}
