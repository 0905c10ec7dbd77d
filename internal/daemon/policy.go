package daemon

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// maxGuestQueues is how many queue pairs a vNIC may have that a guest asks for. Each
// takes descriptors of this daemon and of QEMU, and with vhost a thread of the host's.
const maxGuestQueues = 16

// checkQueues returns a [vnic.ErrForbidden] for more queue pairs than a guest may
// ask for.
func checkQueues(n int) error {
	if n > maxGuestQueues {
		return fmt.Errorf("queues %d: guests may have %d: %w", n, maxGuestQueues, vnic.ErrForbidden)
	}
	return nil
}

// PortRange are the ports of the hypervisor that guests may ask to have
// published: First to Last. None when Last is 0. It is a flag's value.
type PortRange struct {
	First, Last uint16
}

// DefaultPublishPorts leaves out the ports of system services.
var DefaultPublishPorts = PortRange{First: 1024, Last: 65535}

// noPorts is the range that has none, as it is written.
const noPorts = "none"

// String returns "FIRST-LAST" or "none".
func (r PortRange) String() string {
	if r.Last == 0 {
		return noPorts
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText returns what String does.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads "FIRST-LAST", "PORT" or "none".
func (r *PortRange) UnmarshalText(text []byte) error {
	s := string(text)
	if s == noPorts {
		*r = PortRange{}
		return nil
	}
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	a, aerr := strconv.ParseUint(first, 10, 16)
	b, berr := strconv.ParseUint(last, 10, 16)
	if aerr != nil || berr != nil || a == 0 || a > b {
		return fmt.Errorf("ports %q: give a range such as %s, or %q: %w", s, DefaultPublishPorts, noPorts, vnic.ErrInvalid)
	}
	*r = PortRange{uint16(a), uint16(b)}
	return nil
}

// check returns a [vnic.ErrForbidden] for a mapping that no guest may ask for.
func (r PortRange) check(ports []vnic.PortMapping) error {
	for _, m := range ports {
		if m.HostPort < r.First || m.HostPort > r.Last {
			return fmt.Errorf("publish %s: guests may have ports %s of the hypervisor; choose another, or see `brfused --publish-ports`: %w", m, r, vnic.ErrForbidden)
		}
	}
	return nil
}
