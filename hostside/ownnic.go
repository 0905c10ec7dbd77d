package hostside

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// NICBackend is what is behind a NIC of a VM that is not brfuse's.
type NICBackend struct {
	Kind string // as QEMU calls it: "tap", "user"…
	Tap  string // the name of a tap, where QEMU knows it: it opened it itself
}

// NICBackend tells what is behind the NIC of a VM with that MAC. It is a
// [vnic.ErrNotFound] when QEMU has none, and a [vnic.ErrUnsupported] where it can't
// be asked, as by way of libvirt.
func (h *Host) NICBackend(ctx context.Context, name string, mac vnic.MAC) (NICBackend, error) {
	v, err := h.vm(name)
	if err != nil {
		return NICBackend{}, err
	}
	var text string
	err = v.do(ctx, func(b backend.VM) (err error) {
		t, ok := b.(backend.NetworkTeller)
		if !ok {
			return fmt.Errorf("what is behind the nics of vm %s: %w", name, vnic.ErrUnsupported)
		}
		text, err = t.Network(ctx)
		return err
	})
	if err != nil {
		return NICBackend{}, err
	}
	n, ok := findNIC(text, mac)
	if !ok {
		return n, fmt.Errorf("nic %s of vm %s: QEMU has none: %w", mac, name, vnic.ErrNotFound)
	}
	return n, nil
}

var (
	nicMAC  = regexp.MustCompile(`\btype=nic\b.*\bmacaddr=([0-9a-fA-F:]{17})`)
	peerOf  = regexp.MustCompile(`^\s*\\ .*\btype=([a-z0-9-]+)`)
	tapName = regexp.MustCompile(`\bifname=([^,\s]+)`)
)

// findNIC looks for a NIC in what `info network` prints: a line that has its MAC,
// and below it one, indented by " \ ", of what is behind it.
func findNIC(text string, mac vnic.MAC) (n NICBackend, found bool) {
	for line := range strings.Lines(text) {
		if m := nicMAC.FindStringSubmatch(line); m != nil {
			if found {
				return n, true // with nothing behind it
			}
			found = strings.EqualFold(m[1], mac.String())
			continue
		}
		m := peerOf.FindStringSubmatch(line)
		if !found || m == nil {
			continue
		}
		n.Kind = m[1]
		if t := tapName.FindStringSubmatch(line); t != nil {
			n.Tap = t[1]
		}
		return n, true
	}
	return n, found
}
