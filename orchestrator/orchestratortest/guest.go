package orchestratortest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// agentLocked returns a VM whose agent answers.
func (c *Conn) agentLocked(vm string) (*machine, error) {
	m := c.w.machines[vm]
	switch {
	case !c.knows(vm):
		return nil, fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
	case m == nil || !m.agent:
		return nil, fmt.Errorf("vm %s: %w", vm, vnic.ErrAgentUnavailable)
	}
	return m, nil
}

// checkLocked returns what stands against a move.
func (m *machine) checkLocked(mv vnic.Move) error {
	if mv.Handover {
		return nil
	}
	if !m.pods[mv.Netns] {
		return fmt.Errorf("netns %s: %w", mv.Netns, vnic.ErrUnknownPod)
	}
	for _, d := range m.devices {
		if d.netns == mv.Netns && d.name == mv.Interface && d.mac != mv.MAC {
			return fmt.Errorf("interface %s in netns %s: %w", mv.Interface, mv.Netns, vnic.ErrNameTaken)
		}
	}
	return nil
}

// checkMove refuses what a real agent does.
func checkMove(mv vnic.Move) error {
	if (mv.Netns == "") != mv.Handover {
		return fmt.Errorf("netns %q, handover %t: %w", mv.Netns, mv.Handover, vnic.ErrInvalid)
	}
	return vnic.CheckInterface(mv.Interface)
}

// Prepare checks pod and interface name.
func (c *Conn) Prepare(ctx context.Context, vm string, mv vnic.Move) error {
	return c.call(ctx, "prepare", func() error {
		m, err := c.agentLocked(vm)
		if err != nil {
			return err
		}
		return m.checkLocked(mv)
	})
}

// Move puts a vNIC into its pod, or leaves one that is handed over where it is. It waits for one that is missing until ctx ends.
func (c *Conn) Move(ctx context.Context, vm string, mv vnic.Move) (nic vnic.NIC, t []vnic.Timing, err error) {
	missing := false
	err = c.call(ctx, "move", func() error {
		m, err := c.agentLocked(vm)
		if err != nil {
			return err
		}
		if err := m.checkLocked(mv); err != nil {
			return err
		}
		d := m.find(mv.MAC)
		if missing = d == nil; missing {
			return nil
		}
		if d.spoilt {
			return fmt.Errorf("vnic %s: %w", mv.MAC, vnic.ErrDiffers)
		}
		if m.told[mv.MAC] != mv.ID || d.pod != mv.Netns { // else it is told again, maybe of a pod that was restarted meanwhile
			c.w.witnessLocked(d, mv)
		}
		m.told[mv.MAC] = mv.ID
		d.handed, d.pod = mv.Handover, mv.Netns
		switch {
		case !mv.Handover:
			d.netns, d.name = mv.Netns, mv.Interface
		case d.netns == "":
			d.name = mv.ID.LinkName()
		}
		if m.swift && !mv.Handover {
			d.up, d.addrs, d.routes = true, slices.Clone(mv.Addresses), slices.Clone(mv.Routes)
		}
		nic = m.nic(d)
		return nil
	})
	if missing && err == nil {
		<-ctx.Done()
		return nic, nil, fmt.Errorf("vnic %s: %w", mv.MAC, vnic.ErrNICMissing)
	}
	return nic, []vnic.Timing{{Step: "appear", Duration: time.Millisecond}, {Step: "move", Duration: time.Millisecond}}, err
}

// Configure gives a vNIC its addresses and routes, and sets it up.
func (c *Conn) Configure(ctx context.Context, vm string, mv vnic.Move) (nic vnic.NIC, err error) {
	err = c.call(ctx, "configure", func() error {
		m, err := c.agentLocked(vm)
		if err != nil {
			return err
		}
		if err := m.checkLocked(mv); err != nil {
			return err
		}
		d := m.find(mv.MAC)
		if d == nil {
			return fmt.Errorf("vnic %s: %w", mv.MAC, vnic.ErrNICMissing)
		}
		m.told[mv.MAC] = mv.ID
		d.up, d.addrs, d.routes = true, slices.Clone(mv.Addresses), slices.Clone(mv.Routes)
		nic = m.nic(d)
		return nil
	})
	return nic, err
}

// witnessLocked notes what must never happen when a pod gets a vNIC.
func (w *World) witnessLocked(d *device, mv vnic.Move) {
	switch {
	case d.netns != "" && !mv.Handover && d.netns != mv.Netns:
		w.wrong = append(w.wrong, fmt.Sprintf("vnic %s was moved from pod %s to pod %s", mv.ID, d.netns, mv.Netns))
	case d.netns == "" && !d.handed && (d.up || d.addrs != nil || d.dirt != ""):
		w.wrong = append(w.wrong, fmt.Sprintf("vnic %s came to pod %s with what another left: %s", mv.ID, mv.Netns, d))
	}
	if d.id != mv.ID {
		w.wrong = append(w.wrong, fmt.Sprintf("vnic %s was taken for %s", d.id, mv.ID))
	}
}

// Retrieve takes a vNIC back to the guest's first namespace.
func (c *Conn) Retrieve(ctx context.Context, vm string, mv vnic.Move) (nic vnic.NIC, err error) {
	missing := false
	err = c.call(ctx, "retrieve", func() error {
		m, err := c.agentLocked(vm)
		if err := cmp.Or(err, checkMove(mv)); err != nil {
			return err
		}
		d := m.find(mv.MAC)
		if missing = d == nil; missing {
			return nil
		}
		delete(m.told, mv.MAC)
		d.bare()
		d.name, d.handed = mv.ID.LinkName(), false
		if d.sticks {
			return fmt.Errorf("vnic %s has %s: %w", mv.ID, d.dirt, vnic.ErrDiffers)
		}
		d.dirt = ""
		nic = m.nic(d)
		return nil
	})
	if missing && err == nil {
		<-ctx.Done()
		return nic, fmt.Errorf("vnic %s: %w", mv.MAC, vnic.ErrNICMissing)
	}
	return nic, err
}

// Release takes a vNIC out of its pod, or forgets one that was handed over.
func (c *Conn) Release(ctx context.Context, vm string, mv vnic.Move) error {
	return c.call(ctx, "release", func() error {
		m, err := c.agentLocked(vm)
		if err := cmp.Or(err, checkMove(mv)); err != nil {
			return err
		}
		delete(m.told, mv.MAC)
		if d := m.find(mv.MAC); d != nil && !mv.Handover {
			d.bare()
		}
		return nil
	})
}

// NICs returns the vNICs that the guest sees.
func (c *Conn) NICs(ctx context.Context, vm string) (nics []vnic.NIC, err error) {
	err = c.call(ctx, "nics", func() error {
		m, err := c.agentLocked(vm)
		if err != nil {
			return err
		}
		for _, d := range m.sorted() {
			if d.seen {
				nics = append(nics, m.nic(d))
			}
		}
		return nil
	})
	return nics, err
}

func (m *machine) nic(d *device) vnic.NIC {
	return vnic.NIC{
		ID: m.told[d.mac], MAC: d.mac, PCI: fmt.Sprintf("0000:01:%02x.0", d.slot), Driver: "virtio_net",
		Interface: d.name, Netns: d.netns, Up: d.up, Addresses: slices.Clone(d.addrs),
	}
}
