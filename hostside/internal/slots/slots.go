// Package slots plans where vNICs go: it knows a virtual machine's hotplug
// slots, which of them are free and which is the fastest, without asking the
// hypervisor. A backend looks at its machine, describes what it saw as buses and
// merges that into a [Table].
//
// What it knows of PCI: a root port or a downstream port of a switch holds one
// device, each function of a packed (multifunction) root port is a bus of its
// own, a conventional bridge holds 31 or 32, and a bridge that stands on
// another's bus takes one of its slots.
package slots

import "fmt"

// Class orders slots by how fast a vNIC in them comes and goes.
type Class int

const (
	// ACPIBridge is a conventional bus under ACPI: plug and unplug take 50 ms.
	ACPIBridge Class = iota
	// ACPIPort is a PCIe port under ACPI: as fast, one slot a bus.
	ACPIPort
	// NativePort is a PCIe port with its own hotplug: an unplug takes 5 s.
	NativePort
	// SHPCBridge is a conventional bridge with its own hotplug controller: as
	// slow, and few guests drive it.
	SHPCBridge
	classes
)

// ACPI tells whether plugs in slots of the class are signalled by ACPI.
func (c Class) ACPI() bool { return c == ACPIBridge || c == ACPIPort }

// Port tells whether buses of the class are PCIe ports, which hold one device.
func (c Class) Port() bool { return c == ACPIPort || c == NativePort }

// ClassOf tells the class of a bus from its kind, and from whether ACPI signals
// its plugs.
func ClassOf(express, acpi bool) Class {
	switch {
	case acpi && !express:
		return ACPIBridge
	case acpi:
		return ACPIPort
	case express:
		return NativePort
	}
	return SHPCBridge
}

// Bus is a PCI bus that accepts hotplugged devices, as one look at a machine saw it.
type Bus struct {
	// Name is how the hypervisor calls the bus in a device's address.
	Name  string
	Class Class
	// NoZero says that device number 0 of a conventional bus is no place for a
	// device: a standard hotplug controller (SHPC) numbers its slots from 1, also
	// when ACPI does its work. PCIe ports have no other number.
	NoZero bool
	// Taken are the owners of device numbers: whatever names the device there. A
	// backend must name its own devices as it names them to Reserve.
	Taken map[int]string
	// Vectors are how many interrupt vectors the devices there may take. Default: 1.
	Vectors map[int]int
	// Wired are the device numbers that hold a bridge or another device that
	// never leaves: they are no slots.
	Wired map[int]bool
}

// devices are the device numbers that a bus has for hotplug. 0 comes last: it is
// the one that people give what they place by hand.
func (b Bus) devices() []int {
	if b.Class.Port() {
		return []int{0}
	}
	var numbers []int
	for d := 1; d <= 31; d++ {
		numbers = append(numbers, d)
	}
	if !b.NoZero {
		numbers = append(numbers, 0)
	}
	return numbers
}

// Slot is a place for one device.
type Slot struct {
	Bus    string
	Device int // number on the bus

	class   Class
	owner   string // names its device; empty: free
	vectors int    // of its device
	flight  bool   // a plug is under way: what a look says doesn't count
	gone    bool   // its bus is gone
	queued  bool   // stands in the queue of its class
	stamp   uint64 // when owner changed
}

// String is "bus/device".
func (s *Slot) String() string { return Name(s.Bus, s.Device) }

// Name is how a slot is written: the device number as lspci does.
func Name(bus string, device int) string { return fmt.Sprintf("%s/%02x", bus, device) }
