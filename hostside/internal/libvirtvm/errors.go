package libvirtvm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// errStopped is returned when the domain doesn't run.
var errStopped = fmt.Errorf("%w: %w", vnic.ErrVMGone, backend.ErrNotRunning)

// errGuestRefused is returned when the guest reports that it can't let go of a device.
var errGuestRefused = errors.New("the guest refuses to release the device")

// outageError says that libvirtd doesn't answer, which tells nothing about the
// domain. It hides its cause, which elsewhere means that a VM is gone.
type outageError struct {
	socket string
	cause  error
}

func (e *outageError) Error() string {
	return fmt.Sprintf("libvirtd does not answer at %s (%v); start it, by `systemctl start libvirtd` on most systems; the domain may well run", e.socket, e.cause)
}

// describes reports whether err is libvirt's and its text has one of the words:
// most refusals are of one code, so that only the text tells them apart.
func describes(err error, words ...string) bool {
	e, ok := errors.AsType[libvirt.Error](err)
	if !ok {
		return false
	}
	for _, w := range words {
		if strings.Contains(e.Message, w) {
			return true
		}
	}
	return false
}

func hasCode(err error, codes ...libvirt.ErrorNumber) bool {
	e, ok := errors.AsType[libvirt.Error](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if e.Code == uint32(c) {
			return true
		}
	}
	return false
}

// noDevice: libvirt doesn't know the alias.
func noDevice(err error) bool {
	return hasCode(err, libvirt.ErrDeviceMissing) || describes(err, "no device found with alias")
}

// sameAlias: libvirt has a device of that alias.
func sameAlias(err error) bool { return describes(err, "non unique alias") }

// duplicateID: QEMU has a device or backend of that id, of which libvirt may not
// know.
func duplicateID(err error) bool {
	return describes(err, "Duplicate ID", "Duplicate device ID", "Duplicate nic", "duplicate ID")
}

// tapStale: someone has the tap open, or QEMU mixes its descriptor up with one that a
// libvirtd passed before it died.
func tapStale(err error) bool {
	return describes(err, "Unable to create tap device") && describes(err, "resource busy") ||
		describes(err, "Can't use file descriptor")
}

// unplugPending and guestBusy are QEMU's refusals, which libvirt passes on.
func unplugPending(err error) bool { return describes(err, "already in the process of unplug") }

func guestBusy(err error) bool { return describes(err, "guest is busy") }

// slotUnusable: libvirt, or QEMU, doesn't grant the slot.
func slotUnusable(err error) bool {
	return describes(err, "double use of PCI", "already in use", "already occupied", "not available for", "in use by",
		"does not support hotplugging", "cannot be plugged into", "Hot-plug failed", "cannot be exposed", "PCI slot") ||
		guestBusy(err)
}

// strangers: a device that libvirt doesn't know is in the slot, or the slot is none
// after all. The XML won't tell.
func strangers(err error) bool { return slotUnusable(err) && !guestBusy(err) }

// notRunning: the domain has stopped.
func notRunning(err error) bool {
	return hasCode(err, libvirt.ErrNoDomain) || hasCode(err, libvirt.ErrOperationInvalid) && describes(err, "domain is not running", "domain is no longer running") ||
		describes(err, "domain is no longer running", "domain is not running")
}

// backendLost says that QEMU had dropped the backend of a device by the time the device
// was to be made with it, as it does while it quits.
func backendLost(err error) bool {
	return describes(err, "can't find value 'host"+aliasPrefix)
}

// monitorLost: libvirt lost QEMU while it worked on the call.
func monitorLost(err error) bool {
	return describes(err, "monitor", "Monitor")
}
