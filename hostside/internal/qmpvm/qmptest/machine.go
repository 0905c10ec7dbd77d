package qmptest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Guest is how the guest of a [Machine] treats a device_del.
type Guest int

// Kinds of guests.
const (
	Prompt  Guest = iota // lets go at once
	Silent               // does nothing, such as one that hasn't booted
	Refuses              // reports an error
)

// device is a device of a machine.
type device struct {
	kind    string // QOM type
	bus     string
	addr    int
	mac     string
	netdev  string
	pending bool // device_del was accepted
}

// Machine emulates the commands of a QEMU that has one conventional bridge "br0"
// in a root port, and root ports "rp1" and so on. It answers as QEMU 7.2 under
// ACPI hotplug does. It is safe for concurrent use.
type Machine struct {
	mu      sync.Mutex // guards what follows
	client  *Client
	guest   Guest
	busy    int // so many device_dels find the guest busy
	slots   int // of br0, up to 31
	ports   int
	devices map[string]*device
	netdevs map[string]int // name -> descriptors
	fds     map[string]int
	down    map[string]bool
	fail    map[string]Refusal
	log     []string
	slow    bool // tells late that devices are gone
}

// NewMachine returns a machine whose bridge has so many free slots; the others
// are taken by devices that aren't vNICs. It also has so many empty root ports.
func NewMachine(slots, ports int) *Machine {
	m := &Machine{
		slots: slots, ports: ports,
		devices: map[string]*device{},
		netdevs: map[string]int{}, fds: map[string]int{},
		down: map[string]bool{}, fail: map[string]Refusal{},
	}
	for d := slots + 1; d <= 31; d++ {
		m.devices[fmt.Sprintf("other%d", d)] = &device{kind: "virtio-rng-pci", bus: "br0", addr: d}
	}
	return m
}

// SetGuest changes how the guest treats device_del; the next busy ones find it busy.
func (m *Machine) SetGuest(g Guest, busy int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guest, m.busy = g, busy
}

// Fail refuses the next command of that name.
func (m *Machine) Fail(command, class, desc string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[command] = Refusal{class, desc}
}

// Put adds a device behind the client's back. An empty netdev leaves the
// backend away.
func (m *Machine) Put(id, bus string, addr int, mac, netdev string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.devices[id] = &device{kind: "virtio-net-pci", bus: bus, addr: addr, mac: mac, netdev: netdev}
	if netdev != "" {
		m.netdevs[netdev] = 1
	}
}

// PutNetdev adds a backend behind the client's back.
func (m *Machine) PutNetdev(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.netdevs[id] = 1
}

// Eject removes a device on the guest's own account, with QEMU's two events.
func (m *Machine) Eject(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ejectLocked(id)
}

func (m *Machine) ejectLocked(id string) {
	if _, ok := m.devices[id]; !ok {
		return
	}
	delete(m.devices, id)
	delete(m.down, id)
	if m.client == nil {
		return
	}
	m.client.Event("DEVICE_DELETED", map[string]any{"path": peripheral + "/" + id + "/virtio-backend"})
	if !m.slow {
		m.finishLocked(id)
	}
}

// SetSlow has QEMU tell of the removal of devices themselves only by Finish.
func (m *Machine) SetSlow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = true
}

// Finish tells of the removal of a device that is gone.
func (m *Machine) Finish(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finishLocked(id)
}

func (m *Machine) finishLocked(id string) {
	m.client.Event("DEVICE_DELETED", map[string]any{"device": id, "path": peripheral + "/" + id})
}

// Kill ends the connection of the moment.
func (m *Machine) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		m.client.Close()
	}
}

// Commands returns the names of the commands run so far, queries left out.
func (m *Machine) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log)
}

// String returns the state, one thing a line: vNICs, backends, descriptors.
func (m *Machine) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m.devices)) {
		if d := m.devices[id]; d.kind == "virtio-net-pci" {
			link := "up"
			if m.down[id] {
				link = "down"
			}
			fmt.Fprintf(&b, "device %s %s/%02x %s netdev %s link %s\n", id, d.bus, d.addr, d.mac, d.netdev, link)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.netdevs)) {
		fmt.Fprintf(&b, "netdev %s fds %d\n", id, m.netdevs[id])
	}
	for _, name := range slices.Sorted(maps.Keys(m.fds)) {
		fmt.Fprintf(&b, "fd %s\n", name)
	}
	return b.String()
}

// Handle implements [Handler].
func (m *Machine) Handle(c *Client, r Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !strings.HasPrefix(r.Execute, "q") && !strings.HasPrefix(r.Execute, "human") {
		m.log = append(m.log, r.Execute)
	}
	if f, ok := m.fail[r.Execute]; ok {
		delete(m.fail, r.Execute)
		c.Refuse(r, f.Class, "%s", f.Desc)
		return
	}
	var a arguments
	if len(r.Args) != 0 {
		if err := json.Unmarshal(r.Args, &a); err != nil {
			c.Refuse(r, "GenericError", "%s", err)
			return
		}
	}
	value, refusal := m.runLocked(c, r.Execute, a)
	if refusal != nil {
		c.Refuse(r, refusal.Class, "%s", refusal.Desc)
		return
	}
	c.Return(r, value)
	if r.Execute == "device_del" {
		m.guestActsLocked(a.ID)
	}
}

// arguments are those of all commands that a machine knows.
type arguments struct {
	ID, Bus, Addr, MAC, Netdev, Driver, FDs, VhostFDs string
	FDName, Name, Path, Property, Type                string
	CommandLine                                       string `json:"command-line"`
	Up                                                bool
}

func (m *Machine) runLocked(c *Client, command string, a arguments) (any, *Refusal) {
	empty := struct{}{}
	switch command {
	case "qmp_capabilities":
		m.client = c
		m.closeFilesLocked()
		return empty, nil
	case "getfd":
		fd := c.TakeFile()
		if fd < 0 {
			return nil, generic("No file descriptor supplied via SCM_RIGHTS")
		}
		m.closeFileLocked(a.FDName)
		m.fds[a.FDName] = fd
		return empty, nil
	case "closefd":
		if _, ok := m.fds[a.FDName]; !ok {
			return nil, generic("File descriptor named '%s' not found", a.FDName)
		}
		m.closeFileLocked(a.FDName)
		return empty, nil
	case "netdev_add":
		return empty, m.netdevAddLocked(a)
	case "netdev_del":
		if _, ok := m.netdevs[a.ID]; !ok {
			return nil, notFound(a.ID)
		}
		delete(m.netdevs, a.ID)
		return empty, nil
	case "device_add":
		return empty, m.deviceAddLocked(a)
	case "device_del":
		return empty, m.deviceDelLocked(a)
	case "set_link":
		if _, ok := m.devices[a.Name]; !ok {
			return nil, notFound(a.Name)
		}
		m.down[a.Name] = !a.Up
		return empty, nil
	case "human-monitor-command":
		return m.infoNetworkLocked(), nil
	case "qom-list":
		return m.qomListLocked(a.Path)
	case "qom-get":
		return m.qomGetLocked(a.Path, a.Property)
	}
	return nil, &Refusal{"CommandNotFound", fmt.Sprintf("The command %s has not been found", command)}
}

func generic(format string, a ...any) *Refusal {
	return &Refusal{"GenericError", fmt.Sprintf(format, a...)}
}

func notFound(id string) *Refusal {
	return &Refusal{"DeviceNotFound", fmt.Sprintf("Device '%s' not found", id)}
}

func (m *Machine) closeFileLocked(name string) {
	if fd, ok := m.fds[name]; ok {
		_ = unix.Close(fd)
		delete(m.fds, name)
	}
}

func (m *Machine) closeFilesLocked() {
	for name := range m.fds {
		m.closeFileLocked(name)
	}
}
