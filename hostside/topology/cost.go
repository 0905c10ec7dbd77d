package topology

import (
	"fmt"

	"github.com/brfuse/brfuse/hostside/internal/slots"
)

// Costs of layouts, measured with QEMU 7.2 and Linux 6.1 under software
// emulation; docs/capacity.md has the tables.
const (
	bootPerBridge = 35  // ms
	memPerFlat    = 800 // KiB of QEMU's memory for a bridge with its root port
	memPerNested  = 550 // KiB for a bridge beside others
	memPerVNIC    = 480 // KiB of QEMU's memory for each vNIC, without what the guest touches
	guestPerVNIC  = 640 // KiB of the guest's
	firstPlug     = 18  // ms
)

// Cost is what a layout takes.
type Cost struct {
	BootMS   int // that booting takes longer under software emulation
	QEMUKiB  int // of memory for the empty bridges
	VNICKiB  int // of QEMU's memory for all vNICs
	GuestKiB int // of the guest's memory for all vNICs
	// Vectors tells how many vNICs of one queue pair get so many interrupt vectors,
	// when brfuse plugs all. Without, a vNIC shares one of the guest's lines.
	Vectors map[int]int
	PlugMS  int // median time until the guest has the last vNIC; the first takes 18
}

// Cost returns what the layout takes.
func (l Layout) Cost() Cost {
	mem := memPerNested
	if l.kind() == flat {
		mem = memPerFlat
	}
	c := Cost{
		BootMS: bootPerBridge * l.Bridges, QEMUKiB: mem * l.Bridges, VNICKiB: memPerVNIC * l.Slots, GuestKiB: guestPerVNIC * l.Slots,
		Vectors: map[int]int{}, PlugMS: plugTime(l.Slots),
	}
	room := l.room()
	for i := range l.Slots {
		n := room.Choose(1, l.Slots-i-1)
		room = room.Take(n)
		c.Vectors[n]++
	}
	return c
}

// plugTime is that of the last of n vNICs: at each change of its memory map QEMU
// goes through all parts of the map for each device.
func plugTime(n int) int { return firstPlug + n/10 + n*n/4000 }

func (l Layout) room() slots.Room { return slots.Bounds(l.CPUs, l.Bridges) }

// vectors returns the most that all vNICs can have, for a hypervisor that doesn't
// choose for each; all is true when that is as many as they want.
func (l Layout) vectors() (n int, all bool) {
	for _, n := range []int{slots.Full(1), slots.Full(1) - 1} {
		r := l.room()
		for range l.Slots {
			r = r.Take(n)
		}
		if r.Vectors >= 0 && r.Sections >= 0 {
			return n, n == slots.Full(1)
		}
	}
	return 0, false
}

// Notes tell what the layout costs and needs, a sentence each.
func (l Layout) Notes() []string {
	c := l.Cost()
	notes := []string{
		fmt.Sprintf("%d hotplug slots on %d bridge(s).", l.Slots, l.Bridges),
		"Needs -M q35 of version 6.1 or newer with its default ACPI hotplug; native hotplug takes over 5 s for an unplug.",
		fmt.Sprintf("Costs about %d ms at boot, measured under software emulation, and %d KiB of QEMU's memory.", c.BootMS, c.QEMUKiB),
		fmt.Sprintf("All vNICs take about %d MiB of QEMU's and %d MiB of the guest's memory; a plug about %d ms at the end, %d at first.",
			c.VNICKiB>>10, c.GuestKiB>>10, c.PlugMS, firstPlug),
		fmt.Sprintf("Of %d vCPU(s)' interrupt vectors %d vNICs get all three that they want, %d get two, %d share lines.",
			l.CPUs, c.Vectors[slots.Full(1)], c.Vectors[slots.Full(1)-1], c.Vectors[0]),
	}
	if l.Machine == PC {
		notes[1] = "Needs -M pc with its default ACPI hotplug."
	}
	return notes
}
