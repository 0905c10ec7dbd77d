package backend

import (
	"context"

	"github.com/brfuse/brfuse/vnic"
)

// Detacher is implemented by a [VM] that can let a vNIC go in two steps. Between
// them the tap may be deleted, which is quick, and spares the hypervisor the wait
// for the kernel that closing the last descriptor of a tap is.
type Detacher interface {
	// Detach returns when the device is gone, and nil when there was none. Call
	// Unplug next, at once when the tap was deleted.
	Detach(ctx context.Context, id vnic.ID) error
}
