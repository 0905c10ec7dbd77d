package qmptest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const peripheral = "/machine/peripheral"

// entry is one of qom-list.
type entry struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

func (m *Machine) qomListLocked(path string) (any, *Refusal) {
	list := []entry{{"type", "string"}}
	switch path {
	case "/machine/peripheral-anon":
		return list, nil
	case peripheral:
		list = append(list, entry{"rp0", "child<pcie-root-port>"}, entry{"br0", "child<pcie-pci-bridge>"})
		for _, name := range m.busesLocked()[1:] {
			list = append(list, entry{name, "child<pcie-root-port>"})
		}
		for _, id := range slices.Sorted(maps.Keys(m.devices)) {
			list = append(list, entry{id, "child<" + m.devices[id].kind + ">"})
		}
		return list, nil
	}
	if name, ok := m.busLocked(path); ok {
		list = append(list, entry{"acpi-pcihp-bsel", "uint32"}, entry{"hotplug-handler", "link<hotplug-handler>"})
		for i, id := range m.onBusLocked(name) {
			list = append(list, entry{fmt.Sprintf("child[%d]", i), "link<" + id + ">"})
		}
		return list, nil
	}
	name := strings.TrimPrefix(path, peripheral+"/")
	if _, ok := m.devices[name]; ok {
		return append(list, entry{"mac", "str"}), nil
	}
	switch {
	case name == "br0":
		return append(list, entry{"br0", "child<PCI>"}, entry{"shpc-bar[0]", "child<memory-region>"}), nil
	case strings.HasPrefix(name, "rp"):
		return append(list, entry{name, "child<PCIE>"}), nil
	}
	return nil, notFound(path)
}

func (m *Machine) qomGetLocked(path, property string) (any, *Refusal) {
	if name, ok := m.busLocked(path); ok {
		if property == "hotplug-handler" {
			return "/machine/unattached/device[2]", nil
		}
		for i, id := range m.onBusLocked(name) {
			if property == fmt.Sprintf("child[%d]", i) {
				return peripheral + "/" + id, nil
			}
		}
		return nil, generic("Property '%s.%s' not found", name, property)
	}
	id := strings.TrimPrefix(path, peripheral+"/")
	d, ok := m.devices[id]
	switch {
	case id == "br0" && property == "addr":
		return 0, nil
	case !ok:
		return nil, notFound(path)
	case property == "addr":
		return d.addr << 3, nil
	case property == "mac":
		return d.mac, nil
	case property == "netdev":
		return d.netdev, nil
	case property == "parent_bus":
		return fmt.Sprintf("%s/%s/%s", peripheral, d.bus, d.bus), nil
	}
	return nil, generic("Property '%s.%s' not found", d.kind, property)
}

// busLocked returns the bus at path: the bus of bridge X is X/X.
func (m *Machine) busLocked(path string) (string, bool) {
	for _, name := range append(m.busesLocked(), "rp0") {
		if path == peripheral+"/"+name+"/"+name {
			return name, true
		}
	}
	return "", false
}

func (m *Machine) onBusLocked(name string) []string {
	if name == "rp0" {
		return []string{"br0"}
	}
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(m.devices)) {
		if m.devices[id].bus == name {
			ids = append(ids, id)
		}
	}
	return ids
}
