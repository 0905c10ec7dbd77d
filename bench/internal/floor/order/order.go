// Package order has what the bench's host side and its program in the guest say
// to each other: lines of JSON over a virtio-serial port.
package order

import (
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Port is the name of the virtio-serial port.
const Port = "org.brfuse.bench.0"

// Order tells the guest which NIC is about to be plugged and where it belongs.
type Order struct {
	MAC       vnic.MAC       `json:"mac"`
	Netns     string         `json:"netns"`
	Interface string         `json:"interface"`
	Addresses []netip.Prefix `json:"addresses"`
}

// Report is the guest's word, twice for an order: armed, when it is ready for
// the NIC, and then the rest.
type Report struct {
	Armed   bool          `json:"armed,omitempty"`
	Move    time.Duration `json:"move,omitempty"`    // from the NIC's event until it was in the pod, up and named
	Address time.Duration `json:"address,omitempty"` // from then until it had its addresses
	Error   string        `json:"error,omitempty"`
}
