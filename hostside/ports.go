package hostside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/vnic"
)

// Ports returns the vNICs that are really there, by what the hypervisor says
// and by the taps on the host: those of one VM, or, with an empty name, of all
// VMs, and taps that no VM's device belongs to, with an empty VM. Among these is
// what only the packet filter still knows, with neither tap nor device. A
// hypervisor that is registered as two VMs has its vNICs in both.
//
// A VM that is gone has none. When a VM can't be asked, Ports fails: its taps
// must not pass for taps of no VM. The error is [vnic.ErrUnknownVM] when the VM
// is not registered.
func (h *Host) Ports(ctx context.Context, vmName string) ([]vnic.Port, error) {
	// Taps first: one that is made meanwhile shows by its device, and not as
	// one of no VM.
	taps, err := h.links.TapStates(ctx)
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	vms, err := h.chosen(vmName)
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	var ports []vnic.Port
	owned := map[vnic.ID]bool{}
	for _, v := range vms {
		found, err := v.ports(ctx)
		if err != nil {
			return nil, fmt.Errorf("list ports of vm %s: %w", v.Name, err)
		}
		for _, p := range found {
			tap, there := taps[p.ID]
			p.Tap, p.Bridged = there, h.bridged(tap)
			owned[p.ID] = true
			ports = append(ports, p)
		}
	}
	if vmName == "" {
		ports = append(ports, h.ownerless(taps, owned)...)
	}
	slices.SortFunc(ports, func(a, b vnic.Port) int { return cmp.Compare(a.ID, b.ID) })
	return ports, nil
}

// bridged tells whether a tap is up and a port of its network's bridge. A macvtap needs
// none.
func (h *Host) bridged(t port.TapState) bool {
	n, err := h.network(t.Network)
	return t.Up && (t.Direct || t.Bridge != "") && (err != nil || t.Bridge == n.Bridge)
}

// ownerless returns the taps, and what the packet filter allows, of no VM.
func (h *Host) ownerless(taps map[vnic.ID]port.TapState, owned map[vnic.ID]bool) []vnic.Port {
	var ports []vnic.Port
	for id, tap := range taps {
		if !owned[id] {
			ports = append(ports, vnic.Port{ID: id, Tap: true, Bridged: h.bridged(tap)})
		}
	}
	for _, p := range h.guard.Ports() {
		id, ok := vnic.IDFromName(p.Tap)
		if _, there := taps[id]; ok && !there && !owned[id] {
			ports = append(ports, vnic.Port{ID: id})
		}
	}
	return ports
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
