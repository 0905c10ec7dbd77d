package hostside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// Ports returns the vNICs that are really there, by what the hypervisor says
// and by the taps on the host: those of one VM, or, with an empty name, of all
// VMs, and taps that no VM's device belongs to, with an empty VM.
//
// A VM that is gone has none. When a VM can't be asked, Ports fails: its taps
// must not pass for taps of no VM. The error is [vnic.ErrUnknownVM] when the VM
// is not registered.
func (h *Host) Ports(ctx context.Context, vmName string) ([]vnic.Port, error) {
	// Taps first: one that is made meanwhile shows by its device, and not as
	// one of no VM.
	taps, err := h.taps(ctx)
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	vms, err := h.chosen(vmName)
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	var ports []vnic.Port
	for _, v := range vms {
		found, err := v.ports(ctx)
		if err != nil {
			return nil, fmt.Errorf("list ports of vm %s: %w", v.Name, err)
		}
		for _, p := range found {
			p.Tap = taps[p.ID]
			delete(taps, p.ID)
			ports = append(ports, p)
		}
	}
	if vmName == "" {
		for id := range taps {
			ports = append(ports, vnic.Port{ID: id, Tap: true})
		}
	}
	slices.SortFunc(ports, func(a, b vnic.Port) int { return cmp.Compare(a.ID, b.ID) })
	return ports, nil
}

func (h *Host) taps(ctx context.Context) (map[vnic.ID]bool, error) {
	ids, err := h.links.Taps(ctx)
	taps := make(map[vnic.ID]bool, len(ids))
	for _, id := range ids {
		taps[id] = true
	}
	return taps, err
}

// chosen returns the VM of that name, or all.
func (h *Host) chosen(name string) ([]*vm, error) {
	if name != "" {
		v, err := h.vm(name)
		return []*vm{v}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.vms)), nil
}

func (v *vm) ports(ctx context.Context) ([]vnic.Port, error) {
	var devices []backend.Device
	err := v.do(ctx, func(b backend.VM) (err error) {
		devices, err = b.List(ctx)
		return err
	})
	if errors.Is(err, vnic.ErrVMGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ports := make([]vnic.Port, 0, len(devices))
	for _, d := range devices {
		ports = append(ports, vnic.Port{VM: v.Name, ID: d.ID, MAC: d.MAC, Slot: d.Slot, Plug: true})
	}
	return ports, nil
}
