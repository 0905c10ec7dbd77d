// Package backend is the seam between the host half and what runs the virtual
// machines: one small interface, implemented over QMP and libvirt.
package backend

import (
	"context"
	"errors"
	"os"

	"github.com/brfuse/brfuse/vnic"
)

// ErrNotRunning is returned by a dial when the virtual machine is known not to
// run, as opposed to a hypervisor's manager that can't be asked.
var ErrNotRunning = errors.New("the virtual machine does not run")

// TapOpener is implemented by a [VM] whose hypervisor opens taps by their names.
// They must persist until then, and no descriptor of a tap with one queue may be open.
type TapOpener interface {
	// TapOwner is the user who opens them.
	TapOwner() int
}

// NIC is a vNIC to plug.
type NIC struct {
	ID     vnic.ID
	MAC    vnic.MAC
	MTU    int    // bytes, told to the guest; 0 tells it nothing
	Queues int    // queue pairs, at least 1
	Tap    string // name of the tap on the host, for backends that open it themselves
	// Files are the opened tap, one file a queue pair. The backend doesn't close
	// them. A [TapOpener] takes none.
	Files []*os.File
	// Vhost are opened /dev/vhost-net files, one a queue pair, or empty. The
	// backend doesn't close them.
	Vhost []*os.File
}

// Device is what a hypervisor has of a vNIC.
type Device struct {
	ID       vnic.ID
	MAC      vnic.MAC // zero when there is no frontend
	Slot     string   // "bus/device" with device in two hex digits; empty when there is no frontend
	Backend  bool     // the network backend exists
	Frontend bool     // the device exists
}

// Hotplug kinds.
const (
	HotplugACPI   = "acpi"   // fast: the guest's firmware interface signals plugs and unplugs
	HotplugNative = "native" // PCIe or SHPC attention buttons: five seconds and more for an unplug
)

// Status is the state of a hypervisor.
type Status struct {
	Version    string // of the hypervisor
	Hotplug    string // [HotplugACPI] when any slot has it, else [HotplugNative]
	SlotsUsed  int    // hotplug slots in use, by vNICs and others
	SlotsTotal int    // slots that accept a hotplugged device
}

// VM is a connection to the hypervisor of one virtual machine. It is safe for
// concurrent use. Once the hypervisor is lost every call returns
// [vnic.ErrVMGone]; dial anew then.
type VM interface {
	// Plug gives the VM a vNIC and returns its slot. It is idempotent by ID. When
	// it fails it has undone its own half. Errors: [*vnic.NoSlotError] when no slot
	// is free, [vnic.ErrVMGone].
	Plug(ctx context.Context, n NIC) (slot string, err error)
	// Unplug returns when device and backend are gone, and nil when there was none.
	Unplug(ctx context.Context, id vnic.ID) error
	// List returns every device and backend whose name [vnic.IDFromName]
	// recognises, ordered by ID.
	List(ctx context.Context) ([]Device, error)
	// SetLink sets the carrier of a vNIC. The error is [vnic.ErrNotFound] when
	// there is no such device.
	SetLink(ctx context.Context, id vnic.ID, up bool) error
	// Status returns the version, hotplug kind and slots.
	Status(ctx context.Context) (Status, error)
	// Events carries [vnic.EventRemoved] for vNICs that left without a waiting
	// Unplug, after their backend is removed too, [vnic.EventAgentOff] when
	// the agent closed its port, where the hypervisor tells, and [vnic.EventVMUp]
	// when events may have been lost though the machine went on. It never blocks the
	// connection, and is closed when that is lost or closed.
	Events() <-chan vnic.Event
	// Close ends the connection and waits for its goroutines. Devices stay.
	Close() error
}
