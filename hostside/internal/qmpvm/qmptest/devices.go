package qmptest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (m *Machine) netdevAddLocked(a arguments) *Refusal {
	if _, ok := m.netdevs[a.ID]; ok {
		return generic("Duplicate ID '%s'", a.ID)
	}
	names := strings.Split(a.FDs, ":")
	if a.VhostFDs != "" {
		names = append(names, strings.Split(a.VhostFDs, ":")...)
	}
	for _, name := range names {
		if _, ok := m.fds[name]; !ok {
			return generic("File descriptor named '%s' has not been found", name)
		}
		m.closeFileLocked(name)
	}
	m.netdevs[a.ID] = len(names)
	return nil
}

func (m *Machine) deviceAddLocked(a arguments) *Refusal {
	if _, ok := m.devices[a.ID]; ok {
		return generic("Duplicate device ID '%s'", a.ID)
	}
	addr, err := strconv.ParseInt(a.Addr, 16, 32)
	if err != nil {
		return generic("Property 'virtio-net-pci.addr' doesn't take value '%s'", a.Addr)
	}
	if !slices.Contains(m.busesLocked(), a.Bus) {
		return generic("Bus '%s' not found", a.Bus)
	}
	for id, d := range m.devices {
		if d.bus == a.Bus && d.addr == int(addr) {
			return generic("PCI: slot %d function 0 not available for virtio-net-pci, in use by %s,id=%s", addr, d.kind, id)
		}
	}
	if _, ok := m.netdevs[a.Netdev]; !ok {
		return generic("Property 'virtio-net-pci.netdev' can't find value '%s'", a.Netdev)
	}
	m.devices[a.ID] = &device{kind: a.Driver, bus: a.Bus, addr: int(addr), mac: a.MAC, netdev: a.Netdev}
	return nil
}

func (m *Machine) deviceDelLocked(a arguments) *Refusal {
	d, ok := m.devices[a.ID]
	switch {
	case !ok:
		return notFound(a.ID)
	case m.busy > 0:
		m.busy--
		return generic("Hot-unplug failed: guest is busy (power indicator blinking)")
	case d.pending && m.guest == Silent:
		return generic("Device %s is already in the process of unplug", a.ID)
	}
	d.pending = true
	return nil
}

// guestActsLocked is what happens once a device_del is answered.
func (m *Machine) guestActsLocked(id string) {
	d, ok := m.devices[id]
	if !ok || !d.pending {
		return
	}
	switch m.guest {
	case Prompt:
		m.ejectLocked(id)
	case Refuses:
		d.pending = false
		path := "/machine/peripheral/" + id
		m.client.Event("DEVICE_UNPLUG_GUEST_ERROR", map[string]any{"device": id, "path": path})
	case Silent:
	}
}

func (m *Machine) infoNetworkLocked() string {
	var b strings.Builder
	peers := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(m.devices)) {
		d := m.devices[id]
		if d.kind != "virtio-net-pci" {
			continue
		}
		fmt.Fprintf(&b, "%s: index=0,type=nic,model=virtio-net-pci,macaddr=%s\r\n", id, d.mac)
		if d.netdev != "" {
			fmt.Fprintf(&b, " \\ %s: index=0,type=tap,fds\r\n", d.netdev)
			peers[d.netdev] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.netdevs)) {
		if !peers[id] {
			fmt.Fprintf(&b, "%s: index=0,type=tap,fds\r\n", id)
		}
	}
	return b.String()
}

func (m *Machine) busesLocked() []string {
	buses := []string{"br0"}
	for i := range m.ports {
		buses = append(buses, fmt.Sprintf("rp%d", i+1))
	}
	return buses
}
