package qmpvm

import (
	"errors"
	"strings"
)

// Error is QEMU's refusal of a command.
type Error struct {
	Class string `json:"class"` // QapiErrorClass, such as GenericError
	Desc  string `json:"desc"`  // for humans
}

// Error classes that QEMU tells apart, to be tested for by [errors.Is].
var (
	// ErrDeviceNotFound is returned when a command names a device, backend or
	// object that does not exist.
	ErrDeviceNotFound error = &Error{Class: "DeviceNotFound"}
	// ErrCommandNotFound is returned when this QEMU lacks a command.
	ErrCommandNotFound error = &Error{Class: "CommandNotFound"}
)

// Error returns QEMU's description.
func (e *Error) Error() string {
	if e.Desc == "" {
		return e.Class
	}
	return e.Desc
}

// Is reports whether target is an Error of the same class, and of the same
// description unless it has none.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Class == e.Class && (t.Desc == "" || t.Desc == e.Desc)
}

// describes reports whether err is QEMU's and its text has one of the words.
// QEMU puts most refusals into one class, so that only the text tells them apart.
func describes(err error, words ...string) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	for _, w := range words {
		if strings.Contains(e.Desc, w) {
			return true
		}
	}
	return false
}

// Texts of qdev_unplug in system/qdev-monitor.c, hw/pci/pcie.c, hw/pci/shpc.c.
func unplugPending(err error) bool { return describes(err, "already in the process of unplug") }

func guestBusy(err error) bool {
	return describes(err, "guest is busy")
}

// Texts of do_pci_register_device in hw/pci/pci.c and qdev_device_add.
func slotUnusable(err error) bool {
	return describes(err, "not available for", "already occupied", "does not support hotplugging", "cannot be exposed", "Hot-plug failed") ||
		describes(err, "Bus '") && describes(err, "not found")
}

// Texts of netdev_add for an id in use.
func duplicateID(err error) bool { return describes(err, "Duplicate ID", "Duplicate device ID") }
