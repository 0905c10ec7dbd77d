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

// Verb is what the guest is to do.
type Verb string

// What the guest can do. To Await it answers twice: that it is armed, when it has
// opened all that it will need, and when the NIC is in the pod. To the others it
// answers once, when it is done.
const (
	Await Verb = "await" // await the NIC that is about to be plugged, and move it
	Hold  Verb = "hold"  // get ready to move the NIC, which is in the first namespace or about to be
	Move  Verb = "move"  // move the NIC that is held
	Home  Verb = "home"  // move it back
)

// Order tells the guest what to do; for Move and Home it is what Hold has said.
type Order struct {
	Verb      Verb           `json:"verb"`
	MAC       vnic.MAC       `json:"mac,omitzero"`
	Netns     string         `json:"netns,omitempty"`
	Interface string         `json:"interface,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"` // of default routes
}

// Report is the guest's word.
type Report struct {
	Armed   bool          `json:"armed,omitempty"`
	Move    time.Duration `json:"move,omitempty"`    // until it was in the other namespace, and in a pod up and named
	Address time.Duration `json:"address,omitempty"` // from then until it had its addresses and routes
	Error   string        `json:"error,omitempty"`
}
