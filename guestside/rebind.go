package guestside

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// isFresh tells whether nobody can have changed a vNIC: it was plugged after the
// agent was started, and the agent has given it to nobody.
func (a *Agent) isFresh(d device) bool {
	if d.used {
		return false
	}
	if a.standIn != "" {
		return true
	}
	old, ok := age(d.pci)
	return ok && old < time.Since(a.started)
}

// addPrograms makes BPF programs that a move leaves at a link a fact.
func (a *Agent) addPrograms(now examined) error {
	if !a.tcx {
		return nil
	}
	return a.home.Do(func() error {
		n, err := rtnl.TCXPrograms(now.link.Index)
		if n > 0 {
			now.facts["bpf programs"] = fmt.Sprint(n)
		}
		return err
	})
}

// rebind takes the driver from a vNIC's device and gives it back, which makes
// another link: whatever was done to the old one is gone with it. It takes several
// times as long as a move.
func (a *Agent) rebind(ctx context.Context, m vnic.Move, was examined, why string) (now examined, err error) {
	start := time.Now()
	bad := func(err error) error {
		return fmt.Errorf("make vnic like new, as %s: %w: %w", why, vnic.ErrDiffers, err)
	}
	dev, err := virtioOf(was.device)
	if err != nil {
		return was, bad(err)
	}
	for _, file := range []string{"unbind", "bind"} {
		if err := os.WriteFile(filepath.Join(virtioDrivers, file), []byte(dev), 0); err != nil {
			return was, bad(err)
		}
		a.links.forget(was.link.Index, m.MAC)
	}
	if err := ctx.Err(); err != nil {
		return was, err
	}
	if err := a.takeIn(filepath.Join(pciDevices, was.pci, dev, "net"), m); err != nil {
		return was, bad(err)
	}
	now, err = a.examine(m, device{pci: was.pci, driver: was.driver}, false)
	if err != nil {
		return now, bad(err)
	}
	now.used = false
	a.known.put(m.MAC, now.device)
	a.log.Info("vnic got its driver anew", slog.String("id", string(m.ID)), slog.String("reason", why), slog.Duration("took", time.Since(start)))
	return now, nil
}

// virtioOf returns the name of a vNIC's device on the virtio bus.
func virtioOf(d device) (string, error) {
	if d.driver != virtioDriver || d.pci == "" {
		return "", fmt.Errorf("its driver is %q, not %s on a PCI device: %w", d.driver, virtioDriver, vnic.ErrUnsupported)
	}
	found, err := filepath.Glob(filepath.Join(pciDevices, d.pci, "virtio*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("find its virtio device below %s: found %d: %w", filepath.Join(pciDevices, d.pci), len(found), vnic.ErrUnsupported)
	}
	return filepath.Base(found[0]), nil
}

// takeIn gives the new link of a vNIC, which dir is to show, its name and MTU.
func (a *Agent) takeIn(dir string, m vnic.Move) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return fmt.Errorf("%s has %d links: %w", dir, len(names), vnic.ErrUnsupported)
	}
	l, err := a.conn.Link(names[0].Name())
	if err != nil {
		return err
	}
	a.links.note(l)
	return a.tidy(m)
}
