package vnic

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// VM is a virtual machine as a hypervisor's daemon knows it.
type VM struct {
	// Name identifies the VM. Required.
	Name string `json:"name"`
	// QMP is the path of a QMP socket that is brfuse's alone. Required, unless the VM
	// is reached by libvirt.
	QMP string `json:"qmp,omitempty"`
	// Libvirt is a domain of libvirt, its URI with the domain's name as the last part
	// of the path: "qemu:///system/NAME". Then QMP is empty.
	Libvirt string `json:"libvirt,omitempty"`
	// Channel is where the VM's agent is reached: the path of the unix socket of
	// a virtio-serial port named org.brfuse.agent.0, or "vsock:CID:PORT". Required.
	Channel string `json:"channel"`
	// GuestNetworks are the networks that the guest may ask for by itself, for its
	// container engines. Default: all; see [AllNetworks] and [NoNetwork].
	GuestNetworks []string `json:"guestNetworks,omitempty"`
}

// Words that stand alone among a VM's GuestNetworks: the guest may ask for all, or
// for none. No network has such a name.
const (
	AllNetworks = "all"
	NoNetwork   = "none"
)

// Equal says whether v and o are the same VM, registered the same way.
func (v VM) Equal(o VM) bool {
	return v.Name == o.Name && v.QMP == o.QMP && v.Libvirt == o.Libvirt && v.Channel == o.Channel && slices.Equal(v.GuestNetworks, o.GuestNetworks)
}

// Allows says whether the guest may ask for a network by itself.
func (v VM) Allows(network string) bool {
	return len(v.GuestNetworks) == 0 || network != NoNetwork && slices.Contains(v.GuestNetworks, network)
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
	Ports     []PortMapping // of the hypervisor, that lead to the pod's
	Bandwidth Bandwidth
	// Parked keeps the tap down and out of its bridge: the vNIC is for a pool.
	Parked bool
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
	// Handover leaves the vNIC in the guest's first namespace; see [Request].
	Handover bool
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

// Validate returns what is wrong with r as an [ErrInvalid].
func (r Route) Validate() error {
	switch {
	case !r.Destination.IsValid() || r.Destination != r.Destination.Masked():
		return fmt.Errorf("route to %s: not a network's address: %w", r.Destination, ErrInvalid)
	case r.Gateway.IsValid() && (r.Gateway.Is4() != r.Destination.Addr().Is4() || r.Gateway.Zone() != ""):
		return fmt.Errorf("route to %s over %s: not of one family: %w", r.Destination, r.Gateway, ErrInvalid)
	}
	return nil
}

// Reservation is an address that is kept for a later attachment of a VM.
type Reservation struct {
	VM      string     `json:"vm"`
	Network string     `json:"network"`
	Address netip.Addr `json:"address"`
	Since   time.Time  `json:"since"`
}

// Container is a container of an engine in a guest.
type Container struct {
	// ID is the engine's own, in full.
	ID string
	// Name is what people call it. It may be empty.
	Name string
	// Pod identifies the network namespace: the ID of the container or sandbox
	// that it was made for, which others may share.
	Pod string
	// Netns is the path of the network namespace in the guest.
	Netns string
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
