package libvirtvm

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/hostside/internal/slots"
)

// bridges returns the PCI controllers by their numbers.
func (d *domain) bridges() map[int]device {
	bridges := map[int]device{}
	for _, dev := range d.Devices.All {
		if dev.XMLName.Local == "controller" && dev.Type == "pci" && dev.Index != nil {
			bridges[*dev.Index] = dev
		}
	}
	return bridges
}

// busName is QEMU's name of a controller's bus: the alias, which users may choose.
func busName(index int, controller device) string {
	if name := controller.Alias.Name; name != "" {
		return name
	}
	return "pci." + strconv.Itoa(index)
}

// buses returns the buses of a domain that accept hotplugged devices, and the
// numbers of their controllers by name.
func (d *domain) buses() (buses []slots.Bus, numbers map[string]int) {
	bridges, m := d.bridges(), d.hotplug()
	at, numbers := map[int]int{}, map[string]int{}
	for _, index := range slices.Sorted(maps.Keys(bridges)) {
		dev := bridges[index]
		class, ok := m.class(dev)
		if !ok {
			continue
		}
		b := slots.Bus{Name: busName(index, dev), Class: class, NoZero: true, Taken: map[int]string{}, Wired: map[int]bool{}}
		if dev.Model == "pci-root" {
			b.Taken[isaBridge] = "built in"
		}
		at[index], numbers[b.Name] = len(buses), index
		buses = append(buses, b)
	}
	for _, dev := range d.Devices.All {
		index, slot, ok := dev.place()
		i, hotplugged := at[index]
		if !ok || !hotplugged {
			continue
		}
		owner := dev.Alias.Name
		if owner == "" {
			owner = dev.XMLName.Local
		}
		buses[i].Taken[slot] = owner
		if dev.XMLName.Local == "controller" && dev.Type == "pci" {
			buses[i].Wired[slot] = true
		}
	}
	return buses, numbers
}

// isaBridge is the device number of a PC's ISA bridge, which isn't in the XML.
const isaBridge = 1

// hotplug is how a machine signals plugs.
type hotplug struct {
	root    bool // ACPI on a PC's pci.0
	bridges bool // ACPI on the buses of bridges and ports
}

// machineType reads names like pc-q35-7.2.
var machineType = regexp.MustCompile(`^pc-(q35|i440fx)-(\d+)\.(\d+)$`)

// hotplug tells from the machine's type, and from what the domain passes on to
// QEMU, how plugs are signalled: a q35 does it by ACPI since 6.1 unless told otherwise.
func (d *domain) hotplug() hotplug {
	h := hotplug{}
	acpi := d.Features.ACPI != nil
	switch m := machineType.FindStringSubmatch(d.Type.Machine); {
	case m != nil && m[1] == "i440fx", d.Type.Machine == "pc":
		h.root = acpi && !d.off("PIIX4_PM.acpi-root-pci-hotplug")
		h.bridges = acpi && !d.off("PIIX4_PM.acpi-pci-hotplug-with-bridge-support")
	case m != nil:
		major, _ := strconv.Atoi(m[2])
		minor, _ := strconv.Atoi(m[3])
		h.bridges = acpi && (major > 6 || major == 6 && minor >= 1) && !d.off("ICH9-LPC.acpi-pci-hotplug-with-bridge-support")
	case d.Type.Machine == "q35":
		h.bridges = acpi && !d.off("ICH9-LPC.acpi-pci-hotplug-with-bridge-support")
	}
	return h
}

// off tells that the domain passes "-global NAME=off" to QEMU.
func (d *domain) off(name string) bool {
	is := false
	for _, a := range d.Args {
		if value, ok := strings.CutPrefix(strings.TrimPrefix(a.Value, "-global="), name+"="); ok {
			is = value == "off" || value == "false" || value == "no"
		}
	}
	return is
}

// class tells how devices behind a controller are plugged; ok is false when they
// can't be.
func (h hotplug) class(dev device) (c slots.Class, ok bool) {
	if dev.Target.Hotplug == "off" {
		return 0, false
	}
	switch dev.Model {
	case "pci-root":
		return slots.ACPIBridge, h.root
	case "pcie-root-port", "pcie-switch-downstream-port":
		return slots.ClassOf(true, h.bridges), true
	case "pci-bridge", "pcie-to-pci-bridge":
		return slots.ClassOf(false, h.bridges), true
	}
	return 0, false
}
