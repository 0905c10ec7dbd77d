package guestside

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// pciTree is where the kernel shows what is plugged into PCI.
type pciTree struct{ root string }

// errNotNative is returned for a slot that is not under PCIe's own hotplug.
var errNotNative = errors.New("its slot is not one of native hotplug")

// powerOff turns the power of a vNIC's slot off, if the slot is one of PCIe's native
// hotplug, where an unplug takes five seconds otherwise: the guest waits for as
// long for whoever pressed the slot's button to change his mind. The hypervisor
// takes a device out whose slot has no power. It is done in the background.
func (a *Agent) powerOff(m vnic.Move, pci string) {
	file, err := a.pci.powerOf(pci)
	if errors.Is(err, errNotNative) || pci == "" {
		return
	}
	log := a.log.With(slog.String("id", string(m.ID)), slog.String("pci", pci))
	if err != nil {
		log.Warn("look for the slot", slog.Any("error", err))
		return
	}
	a.wg.Go(func() { // it takes a good second, since the kernel waits for the power to fade
		switch err := os.WriteFile(file, []byte("0"), 0); {
		case errors.Is(err, unix.ENODEV), errors.Is(err, os.ErrNotExist):
			log.Debug("slot is empty already")
		case err != nil:
			log.Warn("power slot off", slog.Any("error", err))
		default:
			log.Info("slot powered off")
		}
	})
}

// powerOf returns the file by which the slot of a virtio NIC is turned off.
func (t pciTree) powerOf(pci string) (string, error) {
	dev := filepath.Join(t.root, "bus/pci/devices", pci)
	if pci == "" || !t.isVirtioNIC(dev) {
		return "", errNotNative
	}
	where, err := filepath.EvalSymlinks(dev)
	if err != nil {
		return "", err
	}
	port := filepath.Base(filepath.Dir(where))
	service, err := filepath.Glob(filepath.Join(t.root, "bus/pci_express/drivers/pciehp", port+":*"))
	if err != nil || len(service) == 0 {
		return "", errNotNative
	}
	slot, _, _ := strings.Cut(pci, ".")
	if all, err := filepath.Glob(filepath.Join(t.root, "bus/pci/devices", slot+".*")); err != nil || len(all) != 1 {
		return "", fmt.Errorf("slot %s has %d devices, and power for all of them: %w", slot, len(all), vnic.ErrUnsupported)
	}
	addresses, err := filepath.Glob(filepath.Join(t.root, "bus/pci/slots/*/address"))
	if err != nil {
		return "", err
	}
	for _, file := range addresses {
		if s, err := readSmall(unix.AT_FDCWD, file); err == nil && strings.TrimSpace(s) == slot {
			return filepath.Join(filepath.Dir(file), "power"), nil
		}
	}
	return "", fmt.Errorf("no slot has address %s: %w", slot, os.ErrNotExist)
}

// isVirtioNIC tells whether a device is a network card of virtio, by vendor and class.
func (t pciTree) isVirtioNIC(dev string) bool {
	vendor, err := readSmall(unix.AT_FDCWD, filepath.Join(dev, "vendor"))
	class, classErr := readSmall(unix.AT_FDCWD, filepath.Join(dev, "class"))
	return errors.Join(err, classErr) == nil && strings.TrimSpace(vendor) == "0x1af4" && strings.HasPrefix(class, "0x0200")
}
