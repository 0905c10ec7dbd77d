package backend

import "context"

// NetworkTeller is implemented by a [VM] whose hypervisor tells of all its NICs, also
// of those that are not brfuse's.
type NetworkTeller interface {
	// Network returns what QEMU's human monitor prints for `info network`.
	Network(ctx context.Context) (string, error)
}
