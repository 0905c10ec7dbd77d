package libvirtvm

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

// domain is what matters of a domain's XML.
type domain struct {
	XMLName xml.Name `xml:"domain"`
	Type    struct {
		Machine string `xml:"machine,attr"`
	} `xml:"os>type"`
	Features struct {
		ACPI *struct{} `xml:"acpi"`
	} `xml:"features"`
	Devices struct {
		All []device `xml:",any"`
	} `xml:"devices"`
	Args []struct {
		Value string `xml:"value,attr"`
	} `xml:"http://libvirt.org/schemas/domain/qemu/1.0 commandline>arg"`
}

// device is any child of the XML's devices.
type device struct {
	XMLName xml.Name
	Type    string   `xml:"type,attr"`
	Index   *int     `xml:"index,attr"`
	Model   string   `xml:"model,attr"`
	Alias   named    `xml:"alias"`
	Address *pciAddr `xml:"address"`
	MAC     struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	Target struct {
		Name    string `xml:"name,attr"`
		Hotplug string `xml:"hotplug,attr"`
	} `xml:"target"`
	Source struct {
		Path string `xml:"path,attr"`
	} `xml:"source"`
	Inner string `xml:",innerxml"`
}

type named struct {
	Name string `xml:"name,attr"`
}

// pciAddr is an address; all numbers are hexadecimal with 0x.
type pciAddr struct {
	Type     string `xml:"type,attr"`
	Domain   string `xml:"domain,attr,omitempty"`
	Bus      string `xml:"bus,attr,omitempty"`
	Slot     string `xml:"slot,attr,omitempty"`
	Function string `xml:"function,attr,omitempty"`
}

// parseDomain reads a domain's XML.
func parseDomain(text string) (*domain, error) {
	d := &domain{}
	if err := xml.Unmarshal([]byte(text), d); err != nil {
		return nil, fmt.Errorf("read the domain's xml: %w", err)
	}
	return d, nil
}

// place returns bus and device number of an address on the PCI bus.
func (d device) place() (bus, slot int, ok bool) {
	if d.Address == nil || d.Address.Type != "pci" {
		return 0, 0, false
	}
	b, err := strconv.ParseUint(d.Address.Bus, 0, 8)
	if err != nil {
		return 0, 0, false
	}
	s, err := strconv.ParseUint(d.Address.Slot, 0, 5)
	if err != nil {
		return 0, 0, false
	}
	return int(b), int(s), true
}

// alias returns the name of a vNIC's device, which is its id in QEMU too.
func alias(id vnic.ID) string { return aliasPrefix + id.DeviceID() }

// aliasPrefix is what libvirt asks of names that it didn't choose.
const aliasPrefix = "ua-"

// aliasID returns the vNIC whose device has an alias.
func aliasID(name string) (vnic.ID, bool) {
	name, ok := strings.CutPrefix(name, aliasPrefix)
	if !ok {
		return "", false
	}
	id, ok := vnic.IDFromName(name)
	return id, ok && id.DeviceID() == name
}

// vnics returns the vNICs that the domain has.
func (d *domain) vnics() map[vnic.ID]nic {
	found, bridges := map[vnic.ID]nic{}, d.bridges()
	for _, dev := range d.Devices.All {
		id, ok := aliasID(dev.Alias.Name)
		if !ok || dev.XMLName.Local != "interface" {
			continue
		}
		n := nic{}
		n.mac, _ = vnic.ParseMAC(dev.MAC.Address)
		if bus, slot, ok := dev.place(); ok {
			n.slot = slots.Name(busName(bus, bridges[bus]), slot)
		}
		found[id] = n
	}
	return found
}

// iface is the XML of a vNIC's interface.
type iface struct {
	XMLName xml.Name `xml:"interface"`
	Type    string   `xml:"type,attr"`
	Target  struct {
		Dev     string `xml:"dev,attr"`
		Managed string `xml:"managed,attr"`
	} `xml:"target"`
	MAC struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	Model struct {
		Type string `xml:"type,attr"`
	} `xml:"model"`
	Driver *ifaceDriver `xml:"driver"`
	MTU    *ifaceMTU    `xml:"mtu"`
	ROM    struct {
		Enabled string `xml:"enabled,attr"`
	} `xml:"rom"`
	Alias   named   `xml:"alias"`
	Address pciAddr `xml:"address"`
}

type ifaceDriver struct {
	Queues int `xml:"queues,attr"`
}

type ifaceMTU struct {
	Size int `xml:"size,attr"`
}

// ifaceXML describes n in a slot of the bus of that number: a device without legacy interface, whose ports
// are scarce, and without option ROM, of which 31 don't fit a bridge's memory.
func ifaceXML(n backend.NIC, bus, slot int) (string, error) {
	x := iface{Type: "ethernet", Alias: named{alias(n.ID)}}
	x.Target.Dev, x.Target.Managed = n.Tap, "no"
	x.MAC.Address, x.Model.Type, x.ROM.Enabled = n.MAC.String(), "virtio-non-transitional", "no"
	if n.Queues > 1 {
		x.Driver = &ifaceDriver{n.Queues}
	}
	if n.MTU != 0 {
		x.MTU = &ifaceMTU{n.MTU}
	}
	x.Address = pciAddr{"pci", "0x0000", fmt.Sprintf("%#02x", bus), fmt.Sprintf("%#02x", slot), "0x0"}
	b, err := xml.Marshal(x)
	return string(b), err
}

// linkState is what an interface's XML says of its carrier.
var linkState = regexp.MustCompile(`<link state=['"][a-z]+['"]\s*/>`)

// withLink returns the XML of a vNIC's interface with another carrier.
func (d *domain) withLink(id vnic.ID, up bool) (string, bool) {
	state := "down"
	if up {
		state = "up"
	}
	for _, dev := range d.Devices.All {
		if dev.XMLName.Local == "interface" && dev.Alias.Name == alias(id) {
			inner := linkState.ReplaceAllLiteralString(dev.Inner, "")
			return fmt.Sprintf("<interface type='ethernet'>%s<link state='%s'/></interface>", inner, state), true
		}
	}
	return "", false
}
