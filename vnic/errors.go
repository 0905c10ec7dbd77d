package vnic

import (
	"errors"
	"fmt"
)

// Code names a kind of failure. Codes travel over RPC and stand in JSON
// output; they stay the same from release to release.
type Code string

// sentinel is an error whose identity is its code.
type sentinel struct {
	code Code
	text string
}

func (s *sentinel) Error() string { return s.text }

// Errors of all packages of brfuse. They are wrapped with what they are about;
// test for them by [errors.Is].
var (
	// ErrInvalid is returned when an argument is malformed.
	ErrInvalid error = &sentinel{"invalid", "invalid argument"}
	// ErrNotFound is returned when an attachment does not exist.
	ErrNotFound error = &sentinel{"not_found", "no such attachment"}
	// ErrUnknownVM is returned when a VM is not registered.
	ErrUnknownVM error = &sentinel{"unknown_vm", "unknown vm"}
	// ErrUnknownNetwork is returned when a network does not exist.
	ErrUnknownNetwork error = &sentinel{"unknown_network", "unknown network"}
	// ErrUnknownPool is returned when no vNICs of a network are kept in a VM.
	ErrUnknownPool error = &sentinel{"unknown_pool", "unknown pool"}
	// ErrUnknownService is returned when no service has a name.
	ErrUnknownService error = &sentinel{"unknown_service", "unknown service"}
	// ErrUnknownPod is returned when a pod has no network namespace in the guest.
	ErrUnknownPod error = &sentinel{"unknown_pod", "unknown pod"}
	// ErrConflict is returned when something of that name exists and differs.
	ErrConflict error = &sentinel{"conflict", "exists and differs"}
	// ErrInUse is returned when something can't be removed while others use it.
	ErrInUse error = &sentinel{"in_use", "in use"}
	// ErrNoSlot is returned when a VM has no free PCI slot. See [NoSlotError].
	ErrNoSlot error = &sentinel{"no_slot", "no free PCI slot"}
	// ErrAddressTaken is returned when a wanted address or MAC is leased already.
	ErrAddressTaken error = &sentinel{"address_taken", "address taken"}
	// ErrAddressOutside is returned when a wanted address is in no pool of the network.
	ErrAddressOutside error = &sentinel{"address_outside", "address outside of the pool"}
	// ErrPoolExhausted is returned when a pool has no address left.
	ErrPoolExhausted error = &sentinel{"pool_exhausted", "no free address"}
	// ErrNameTaken is returned when the pod has an interface of that name.
	ErrNameTaken error = &sentinel{"name_taken", "interface name taken"}
	// ErrAgentUnavailable is returned when the agent of a VM is absent or silent.
	ErrAgentUnavailable error = &sentinel{"agent_unavailable", "guest agent unavailable"}
	// ErrHostUnavailable is returned in a guest when the hypervisor's daemon is
	// absent or silent.
	ErrHostUnavailable error = &sentinel{"host_unavailable", "hypervisor's daemon unavailable"}
	// ErrHypervisorUnavailable is returned when the daemon of another hypervisor, which
	// a call is about, can't be reached or does not answer.
	ErrHypervisorUnavailable error = &sentinel{"hypervisor_unavailable", "hypervisor unavailable"}
	// ErrForbidden is returned when a guest asks for what it may not have.
	ErrForbidden error = &sentinel{"forbidden", "not allowed to this guest"}
	// ErrPortTaken is returned when a port of the hypervisor is in use.
	ErrPortTaken error = &sentinel{"port_taken", "port of the hypervisor taken"}
	// ErrDiffers is returned when a check finds a vNIC otherwise than it was made.
	ErrDiffers error = &sentinel{"differs", "differs from what was made"}
	// ErrUnknownContainer is returned when an engine has no such running container.
	ErrUnknownContainer error = &sentinel{"unknown_container", "unknown container"}
	// ErrNICMissing is returned when a plugged vNIC never shows in the guest.
	ErrNICMissing error = &sentinel{"nic_missing", "vnic did not appear in the guest"}
	// ErrVMGone is returned when the hypervisor process of a VM is not there.
	ErrVMGone error = &sentinel{"vm_gone", "vm is gone"}
	// ErrUnsupported is returned when this kernel or hypervisor lacks a feature.
	ErrUnsupported error = &sentinel{"unsupported", "not supported here"}
)

var sentinels = []error{
	ErrInvalid, ErrNotFound, ErrUnknownVM, ErrUnknownNetwork, ErrUnknownPod, ErrConflict, ErrInUse, ErrNoSlot,
	ErrAddressTaken, ErrAddressOutside, ErrPoolExhausted, ErrNameTaken, ErrAgentUnavailable, ErrNICMissing,
	ErrVMGone, ErrUnsupported, ErrHostUnavailable, ErrForbidden, ErrPortTaken, ErrDiffers, ErrUnknownContainer,
	ErrUnknownPool, ErrUnknownService, ErrHypervisorUnavailable,
}

// CodeOf returns the code of the first error in err's tree that has one, and
// "" when none has.
func CodeOf(err error) Code {
	if s, ok := errors.AsType[*sentinel](err); ok {
		return s.code
	}
	return ""
}

// ErrorOf returns the sentinel with that code, or nil when there is none.
func ErrorOf(code Code) error {
	for _, err := range sentinels {
		if CodeOf(err) == code {
			return err
		}
	}
	return nil
}

// NoSlotError says how many hotplug slots a VM has. It is an [ErrNoSlot].
type NoSlotError struct {
	VM    string
	Used  int // slots in use, by vNICs or by other devices
	Total int // slots that accept a hotplugged device
}

// Error names the numbers and the remedy.
func (e *NoSlotError) Error() string {
	return fmt.Sprintf("vm %s: %s: %d of %d in use; boot the vm with more, see `brfuse topology --vnics N`",
		e.VM, ErrNoSlot, e.Used, e.Total)
}

// Unwrap makes the error an [ErrNoSlot].
func (e *NoSlotError) Unwrap() error { return ErrNoSlot }

// TakenError says that something is another's. It is an [ErrAddressTaken] or an
// [ErrPortTaken].
type TakenError struct {
	What string // such as "address 10.9.0.7"
	Why  string // whose it is, and the remedy, such as "is leased to vm1/web/eth0; choose another"
	Err  error  // ErrAddressTaken or ErrPortTaken
}

// Error is "WHAT WHY: ERR".
func (e *TakenError) Error() string { return fmt.Sprintf("%s %s: %s", e.What, e.Why, e.Err) }

// Unwrap returns Err.
func (e *TakenError) Unwrap() error { return e.Err }
