package hostside

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// Free returns how many hotplug slots of a VM are free, and how many it has. A VM
// that is down is a [vnic.ErrVMGone].
func (h *Host) Free(ctx context.Context, vm string) (free, total int, err error) {
	s, err := h.Status(ctx, vm)
	switch {
	case err != nil:
		return 0, 0, err
	case !s.Running:
		return 0, 0, fmt.Errorf("slots of vm %s: %w", vm, vnic.ErrVMGone)
	}
	return s.SlotsTotal - s.SlotsUsed, s.SlotsTotal, nil
}
