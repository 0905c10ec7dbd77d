// Package topology says how to boot a virtual machine that has room for a
// wanted number of vNICs: the PCI bridges that give it hotplug slots, a port for
// the guest agent's channel, and a QMP socket for the daemon, as arguments of
// QEMU or as XML of libvirt. It also compares a machine that runs with a wish.
//
// The layouts are ones that were measured, all of conventional bridges under ACPI
// hotplug, which has a vNIC come and go in tens of milliseconds. The functions
// are pure.
package topology

import (
	"cmp"
	"fmt"

	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

// Limits of a layout.
const (
	// SlotsPerBridge: device 0 belongs to the bridge's hotplug controller, or to
	// what stands in for it.
	SlotsPerBridge = 31
	// MaxVNICs is the most that one machine takes: QEMU aborts when its memory map
	// has more parts than those of so many vNICs and of some other devices.
	MaxVNICs = slots.MaxVNICs
	// maxFlat is the largest number of bridges with a root port each that boots with
	// SeaBIOS: each takes one of the sixteen 4 KiB windows of x86's I/O space.
	maxFlat = 14
	// maxPC leaves some of pci.0's places to other devices.
	maxPC = 24
)

// ChannelName is the name of the agent's virtio-serial port.
const ChannelName = "org.brfuse.agent.0"

// Sockets of a layout that was given none.
const (
	DefaultQMP     = "/run/brfuse/vm.qmp"
	DefaultChannel = "/run/brfuse/vm.agent"
)

// Machine types that there are layouts for.
const (
	Q35 = "q35"
	PC  = "pc" // i440fx
)

// Wish says what a machine is to have.
type Wish struct {
	VNICs   int    // required
	CPUs    int    // of the guest, which has about 200 interrupt vectors each; default: 1
	Machine string // default: [Q35]
}

// Layout is a machine's room for vNICs. [Plan] makes it; QMP, Channel and
// FirstIndex may be changed afterwards.
type Layout struct {
	VNICs   int // wanted
	CPUs    int
	Machine string
	Bridges int // with slots
	Slots   int // of all bridges; at least VNICs
	// QMP is the path of the daemon's own QMP socket: QEMU serves one client a
	// socket, so it must not be shared with libvirt or an operator. Empty: none, for
	// a daemon that goes through libvirt.
	QMP string
	// Channel is the path of the socket of the agent's port.
	Channel string
	// FirstIndex is libvirt's index of the first PCI controller. Two a bridge
	// follow on, or one where bridges share a root port. Default: 1.
	FirstIndex int
}

// Plan returns the layout for so many vNICs of a q35 machine. See [PlanFor].
func Plan(vnics int) (Layout, error) { return PlanFor(Wish{VNICs: vnics}) }

// PlanFor returns the layout with the fewest bridges. The error is
// [vnic.ErrInvalid] when there is none.
func PlanFor(w Wish) (Layout, error) {
	w.CPUs, w.Machine = cmp.Or(w.CPUs, 1), cmp.Or(w.Machine, Q35)
	most, why := MaxVNICs, "since QEMU has memory sections for no more"
	if w.Machine == PC {
		most, why = maxPC*SlotsPerBridge, fmt.Sprintf("since no more than %d bridges go with other devices on pci.0; q35 takes more", maxPC)
	}
	switch {
	case w.Machine != Q35 && w.Machine != PC:
		return Layout{}, fmt.Errorf("plan room for vnics: machine %q is neither %s nor %s: %w", w.Machine, Q35, PC, vnic.ErrInvalid)
	case w.CPUs < 1:
		return Layout{}, fmt.Errorf("plan room for vnics: %d cpus: at least 1: %w", w.CPUs, vnic.ErrInvalid)
	case w.VNICs < 1:
		return Layout{}, fmt.Errorf("plan room for %d vnics: at least 1: %w", w.VNICs, vnic.ErrInvalid)
	case w.VNICs > most:
		return Layout{}, fmt.Errorf("plan room for %d vnics: %d is the most for one vm, %s; spread the pods over more vms: %w",
			w.VNICs, most, why, vnic.ErrInvalid)
	}
	bridges := (w.VNICs + SlotsPerBridge - 1) / SlotsPerBridge
	return Layout{
		VNICs: w.VNICs, CPUs: w.CPUs, Machine: w.Machine, Bridges: bridges, Slots: bridges * SlotsPerBridge,
		QMP: DefaultQMP, Channel: DefaultChannel, FirstIndex: 1,
	}, nil
}

// kind is how the bridges of a layout stand.
type kind int

const (
	flat   kind = iota // each a pcie-pci-bridge on a root port of its own
	nested             // all on one pcie-pci-bridge, without I/O windows
	onRoot             // on the bus of an i440fx
)

func (l Layout) kind() kind {
	switch {
	case l.Machine == PC:
		return onRoot
	case l.Bridges > maxFlat:
		return nested
	}
	return flat
}
