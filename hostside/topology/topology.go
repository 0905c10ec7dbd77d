// Package topology says how to boot a virtual machine that has room for a
// wanted number of vNICs: the PCI bridges that give it hotplug slots, a port for
// the guest agent's channel, and a QMP socket for the daemon, as arguments of
// QEMU or as XML of libvirt.
//
// The layout is one that was measured. Each pcie-root-port carries one
// pcie-pci-bridge, which has 31 slots; under the ACPI hotplug of q35 machines a
// vNIC there takes about 50 ms to come and as many to go. The functions are pure.
package topology

import (
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// Limits of a layout.
const (
	// SlotsPerBridge: device 0 of a conventional bridge belongs to its hotplug controller.
	SlotsPerBridge = 31
	// MaxBridges is the largest number of bridges that boots with SeaBIOS: each
	// takes one of the sixteen 4 KiB windows of x86's I/O space. 14 boot in 4 s, 17
	// don't boot at all.
	MaxBridges = 14
	// MaxVNICs is the most that one machine takes.
	MaxVNICs = MaxBridges * SlotsPerBridge
)

// ChannelName is the name of the agent's virtio-serial port.
const ChannelName = "org.brfuse.agent.0"

// Sockets of a layout that was given none.
const (
	DefaultQMP     = "/run/brfuse/vm.qmp"
	DefaultChannel = "/run/brfuse/vm.agent"
)

// Layout is a machine's room for vNICs. [Plan] makes it; QMP, Channel and
// FirstIndex may be changed afterwards.
type Layout struct {
	VNICs   int // wanted
	Bridges int
	Slots   int // of all bridges; at least VNICs
	// QMP is the path of the daemon's own QMP socket: QEMU serves one client a
	// socket, so it must not be shared with libvirt or an operator.
	QMP string
	// Channel is the path of the socket of the agent's port.
	Channel string
	// FirstIndex is libvirt's index of the first PCI controller. Two a bridge
	// follow on. Default: 1.
	FirstIndex int
}

// Plan returns the layout with the fewest bridges for so many vNICs. The error is
// [vnic.ErrInvalid] when they are less than one or more than [MaxVNICs].
func Plan(vnics int) (Layout, error) {
	switch {
	case vnics < 1:
		return Layout{}, fmt.Errorf("plan room for %d vnics: at least 1: %w", vnics, vnic.ErrInvalid)
	case vnics > MaxVNICs:
		return Layout{}, fmt.Errorf("plan room for %d vnics: %d is the most for one vm, since firmware finds I/O windows for no more than %d bridges "+
			"of %d slots; spread the pods over more vms: %w", vnics, MaxVNICs, MaxBridges, SlotsPerBridge, vnic.ErrInvalid)
	}
	bridges := (vnics + SlotsPerBridge - 1) / SlotsPerBridge
	return Layout{
		VNICs: vnics, Bridges: bridges, Slots: bridges * SlotsPerBridge,
		QMP: DefaultQMP, Channel: DefaultChannel, FirstIndex: 1,
	}, nil
}

// Vectors that a guest has for devices: about so many a CPU on x86, and a vNIC
// of one queue pair wants four, the port of a bridge one.
const (
	vectorsPerCPU  = 190
	vectorsPerVNIC = 4
)

// Notes tell what the layout costs and needs, a sentence each.
func (l Layout) Notes() []string {
	cpus := (l.Slots*vectorsPerVNIC + l.Bridges + vectorsPerCPU - 1) / vectorsPerCPU
	notes := []string{
		fmt.Sprintf("%d hotplug slots on %d bridge(s); %d of about 29 device numbers of pcie.0 are taken.", l.Slots, l.Bridges, l.Bridges+1),
		"Needs -M q35 of version 6.1 or newer with its default ACPI hotplug; native hotplug takes over 5 s for an unplug.",
		fmt.Sprintf("Costs about %d ms at boot, measured under software emulation, and %d KiB of QEMU's memory.", 50*l.Bridges, 190*l.Bridges),
		fmt.Sprintf("Vectors of their own for all vNICs of one queue pair take about %d vCPUs; with fewer, some share (248 ran on 2).", cpus),
	}
	if l.Bridges > 8 {
		notes = append(notes, "A plug slows down with the number of vNICs: median 137 ms at 248.")
	}
	return notes
}
