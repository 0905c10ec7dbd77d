package vnic

import "net/netip"

// VM is a virtual machine as a hypervisor's daemon knows it.
type VM struct {
	// Name identifies the VM. Required.
	Name string `json:"name"`
	// QMP is the path of a QMP socket that is brfuse's alone. Required.
	QMP string `json:"qmp"`
	// Channel is where the VM's agent is reached: the path of the unix socket of
	// a virtio-serial port named org.brfuse.agent.0, or "vsock:CID:PORT". Required.
	Channel string `json:"channel"`
}

// Plug is an order to give a VM a vNIC: what the host half needs to know.
type Plug struct {
	VM        string
	ID        ID
	Network   string // a network that the host was told of before
	MAC       MAC
	Addresses []netip.Addr // the only source addresses that may leave the port, beside MAC's link-local one
	MTU       int          // bytes
	Queues    int
}

// Port is a vNIC as the host half sees it.
type Port struct {
	VM   string `json:"vm"`
	ID   ID     `json:"id"`
	MAC  MAC    `json:"mac,omitzero"`
	Slot string `json:"slot,omitempty"` // "bus/device" in the hypervisor's words
	Tap  bool   `json:"tap"`            // the tap exists
	Plug bool   `json:"plug"`           // the hypervisor has the device or its backend
	// Bridged says that the tap is up and a port of its network's bridge: without,
	// nothing comes in or goes out.
	Bridged bool `json:"bridged"`
}

// Move is an order to put a vNIC into a pod: what the guest half needs to know.
type Move struct {
	ID        ID
	MAC       MAC
	Netns     string // a name in /run/netns, an absolute path, or a process id
	Interface string
	MTU       int // bytes; 0 leaves it
	Queues    int
	Addresses []netip.Prefix
	Routes    []Route
	// Neighbours are told to the pod's kernel for good, so that it need not ask.
	Neighbours []Neighbour
}

// Neighbour is a station on a vNIC's network.
type Neighbour struct {
	Address netip.Addr `json:"address"`
	MAC     MAC        `json:"mac"`
}

// Route is a route of a pod.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"` // zero: on-link
}

// NIC is a vNIC as the guest half sees it.
type NIC struct {
	ID        ID             `json:"id,omitempty"` // empty when the agent was not told of it
	MAC       MAC            `json:"mac"`          // the permanent one
	PCI       string         `json:"pci"`          // such as 0000:02:01.0
	Driver    string         `json:"driver"`
	Interface string         `json:"interface"` // its name where it is now
	Netns     string         `json:"netns"`     // empty: the guest's first namespace
	Up        bool           `json:"up"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// EventKind is what an [Event] tells.
type EventKind string

// Kinds of events.
const (
	EventVMUp     EventKind = "vm_up"     // the hypervisor process answers (again), or someone changed taps of the VM; events before it may be lost
	EventVMGone   EventKind = "vm_gone"   // the hypervisor process is gone, and every vNIC of the VM with it
	EventRemoved  EventKind = "removed"   // a vNIC was unplugged, and not by the host half
	EventAgentUp  EventKind = "agent_up"  // a session with the VM's agent began; events before it may be lost
	EventReturned EventKind = "returned"  // the pod's namespace died, and its vNIC is in the guest's first namespace
	EventAgentOff EventKind = "agent_off" // the session with the VM's agent ended
)

// Event is something that happened to a VM or to one of its vNICs.
type Event struct {
	Kind EventKind
	VM   string
	ID   ID  // of EventRemoved and EventReturned
	MAC  MAC // of EventReturned
}
