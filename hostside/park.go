package hostside

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// Park takes a plugged vNIC out of its network: its tap is down and in no bridge,
// its packet filter, published ports and limits are gone. The device stays in the
// VM. That it is parked or gone is no error.
func (h *Host) Park(ctx context.Context, vmName string, id vnic.ID) error {
	if _, err := vnic.ParseID(string(id)); err != nil {
		return fmt.Errorf("park vnic: %w", err)
	}
	unlock, err := h.ids.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("park vnic %s: %w", id, err)
	}
	defer unlock()
	if _, err := h.vm(vmName); err != nil {
		return fmt.Errorf("park vnic %s: %w", id, err)
	}
	if err := h.links.Leave(ctx, id); err != nil {
		return fmt.Errorf("park vnic %s: %w", id, err)
	}
	if err := h.unfilter(ctx, id); err != nil {
		return fmt.Errorf("park vnic %s: %w", id, err)
	}
	return nil
}

// Unpark makes the tap of a parked vNIC a port of its network's bridge, filter,
// published ports and limits first. When it fails, the vNIC is parked again. The
// hypervisor is not asked.
//
// Errors: those of [Host.Plug], and [vnic.ErrNotFound] when the tap is not there.
func (h *Host) Unpark(ctx context.Context, p vnic.Plug) error {
	_, err := h.Plug(ctx, p)
	return err
}
