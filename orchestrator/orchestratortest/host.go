package orchestratortest

import (
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// AddVM registers a VM, which may be running or not, and sends events of how it is.
func (c *Conn) AddVM(ctx context.Context, vm vnic.VM) error {
	var events []vnic.Event
	err := c.call(ctx, "addvm", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.vms[vm.Name] {
			return nil
		}
		c.vms[vm.Name] = true
		m := c.w.machines[vm.Name]
		if m == nil || !m.up {
			events = append(events, vnic.Event{Kind: vnic.EventVMGone, VM: vm.Name})
			return nil
		}
		events = append(events, vnic.Event{Kind: vnic.EventVMUp, VM: vm.Name})
		if m.agent {
			events = append(events, vnic.Event{Kind: vnic.EventAgentUp, VM: vm.Name})
		}
		return nil
	})
	for _, ev := range events {
		c.emit(ev)
	}
	return err
}

// RemoveVM forgets a VM.
func (c *Conn) RemoveVM(ctx context.Context, name string) error {
	return c.call(ctx, "removevm", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.vms, name)
		return nil
	})
}

// SetNetwork makes a network.
func (c *Conn) SetNetwork(ctx context.Context, n vnic.Network) error {
	return c.call(ctx, "setnetwork", func() error { c.w.networks[n.Name] = n; return nil })
}

// RemoveNetwork removes a network.
func (c *Conn) RemoveNetwork(ctx context.Context, n vnic.Network) error {
	return c.call(ctx, "removenetwork", func() error { delete(c.w.networks, n.Name); return nil })
}

// Networks returns the networks that were made.
func (c *Conn) Networks(ctx context.Context) (networks []vnic.Network, err error) {
	err = c.call(ctx, "networks", func() error {
		for _, n := range c.w.networks {
			networks = append(networks, vnic.Network{Name: n.Name, Bridge: n.Bridge})
		}
		return nil
	})
	return networks, err
}

// machineLocked returns a VM whose hypervisor runs.
func (c *Conn) machineLocked(vm string) (*machine, error) {
	m := c.w.machines[vm]
	switch {
	case !c.knows(vm):
		return nil, fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
	case m == nil || !m.up:
		return nil, fmt.Errorf("vm %s: %w", vm, vnic.ErrVMGone)
	}
	return m, nil
}

// Plug makes a tap and a device.
func (c *Conn) Plug(ctx context.Context, p vnic.Plug) (port vnic.Port, err error) {
	err = c.call(ctx, "plug", func() error {
		m, err := c.machineLocked(p.VM)
		if err != nil {
			return err
		}
		if _, ok := c.w.networks[p.Network]; !ok {
			return fmt.Errorf("network %s: %w", p.Network, vnic.ErrUnknownNetwork)
		}
		for _, pm := range p.Ports {
			if c.w.busy[pm.HostPort] {
				return fmt.Errorf("publish %s: %w", pm, vnic.ErrPortTaken)
			}
		}
		d := m.devices[p.ID]
		if d == nil {
			slot := m.freeSlot()
			if slot > m.slots {
				return &vnic.NoSlotError{VM: p.VM, Used: m.slots, Total: m.slots}
			}
			d = &device{id: p.ID, mac: p.MAC, slot: slot, seen: !m.blind, name: fmt.Sprintf("eth%d", slot)}
			m.devices[p.ID] = d
			c.w.taps[p.ID] = p.VM
		}
		delete(c.w.loose, p.ID)
		if p.Parked {
			c.w.loose[p.ID] = true
		}
		c.w.extras[p.ID] = extra{slices.Clone(p.Ports), p.Bandwidth}
		port = c.w.portLocked(p.VM, d)
		return nil
	})
	return port, err
}

// Park takes a vNIC out of its network.
func (c *Conn) Park(ctx context.Context, vm string, id vnic.ID) error {
	return c.call(ctx, "park", func() error {
		if !c.knows(vm) {
			return fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
		}
		if _, ok := c.w.taps[id]; ok {
			c.w.loose[id] = true
		}
		delete(c.w.extras, id)
		return nil
	})
}

// Unpark puts a parked vNIC into its network.
func (c *Conn) Unpark(ctx context.Context, p vnic.Plug) error {
	return c.call(ctx, "unpark", func() error {
		if _, err := c.machineLocked(p.VM); err != nil {
			return err
		}
		if _, ok := c.w.taps[p.ID]; !ok {
			return fmt.Errorf("tap of vnic %s: %w", p.ID, vnic.ErrNotFound)
		}
		for _, pm := range p.Ports {
			if c.w.busy[pm.HostPort] {
				return fmt.Errorf("publish %s: %w", pm, vnic.ErrPortTaken)
			}
		}
		delete(c.w.loose, p.ID)
		c.w.extras[p.ID] = extra{slices.Clone(p.Ports), p.Bandwidth}
		return nil
	})
}

func (w *World) portLocked(vm string, d *device) vnic.Port {
	_, tap := w.taps[d.id]
	return vnic.Port{VM: vm, ID: d.id, MAC: d.mac, Slot: fmt.Sprintf("pci.1/%d", d.slot), Tap: tap, Plug: true, Bridged: tap && !w.loose[d.id]}
}

// Unplug takes a device and its tap away; the tap also when the VM is gone, or
// when vm is empty.
func (c *Conn) Unplug(ctx context.Context, vm string, id vnic.ID) error {
	return c.call(ctx, "unplug", func() error {
		if vm != "" && !c.knows(vm) {
			return fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
		}
		if m := c.w.machines[vm]; m != nil {
			delete(m.devices, id)
		}
		delete(c.w.taps, id)
		delete(c.w.loose, id)
		delete(c.w.filters, id)
		delete(c.w.extras, id)
		return nil
	})
}

// Free counts a VM's free slots.
func (c *Conn) Free(ctx context.Context, vm string) (free, total int, err error) {
	err = c.call(ctx, "free", func() error {
		m, err := c.machineLocked(vm)
		if err != nil {
			return err
		}
		free, total = m.slots-len(m.devices), m.slots
		return nil
	})
	return free, total, err
}

// Ports returns the devices of a VM, or of all and the taps of none.
func (c *Conn) Ports(ctx context.Context, vm string) (ports []vnic.Port, err error) {
	err = c.call(ctx, "ports", func() error {
		if vm != "" && !c.knows(vm) {
			return fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
		}
		plugged := map[vnic.ID]bool{}
		for name, m := range c.w.machines {
			if vm != "" && vm != name || !c.knows(name) {
				continue
			}
			for _, d := range m.sorted() {
				plugged[d.id] = true
				ports = append(ports, c.w.portLocked(name, d))
			}
		}
		if vm == "" {
			ports = append(ports, c.w.ownerlessLocked(plugged)...)
		}
		return nil
	})
	return ports, err
}

// ownerlessLocked returns the taps, and the filters of taps that are gone, of no
// device.
func (w *World) ownerlessLocked(plugged map[vnic.ID]bool) []vnic.Port {
	var ports []vnic.Port
	for id := range w.taps {
		if !plugged[id] {
			ports = append(ports, vnic.Port{ID: id, Tap: true, Bridged: !w.loose[id]})
		}
	}
	for id := range w.filters {
		ports = append(ports, vnic.Port{ID: id})
	}
	return ports
}
