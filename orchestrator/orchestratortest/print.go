package orchestratortest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// String prints the state, one thing a line: what is on the host, in the
// hypervisors, and in the guests. Taps and devices are named by their ids.
func (w *World) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for name, n := range w.networks {
		lines = append(lines, fmt.Sprintf("network %s on %s", name, n.Bridge))
	}
	for id, vm := range w.taps {
		line := fmt.Sprintf("tap %s of %s", id, vm)
		if w.loose[id] {
			line += " in no bridge"
		}
		lines = append(lines, line)
	}
	for id, e := range w.extras {
		for _, p := range e.ports {
			lines = append(lines, fmt.Sprintf("port %s of %s", p, id))
		}
		if e.bandwidth != (vnic.Bandwidth{}) {
			lines = append(lines, fmt.Sprintf("limit %d/%d of %s", e.bandwidth.Ingress.Bits, e.bandwidth.Egress.Bits, id))
		}
	}
	for id := range w.filters {
		lines = append(lines, fmt.Sprintf("filter of %s", id))
	}
	for vm, m := range w.machines {
		for _, d := range m.devices {
			lines = append(lines, fmt.Sprintf("%s: device %s %s in slot %d", vm, d.id, d.mac, d.slot))
			if d.seen {
				lines = append(lines, fmt.Sprintf("%s: %s", vm, d))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (d *device) String() string {
	where, state := "root", "down"
	if d.netns != "" {
		where = "pod " + d.netns
	}
	if d.up {
		state = "up"
	}
	words := []string{where + ":", d.name, d.mac.String(), state}
	for _, a := range d.addrs {
		words = append(words, a.String())
	}
	if d.dirt != "" {
		words = append(words, "dirty by "+d.dirt)
	}
	parts := []string{strings.Join(words, " ")}
	for _, r := range d.routes {
		parts = append(parts, fmt.Sprintf("%s via %s", r.Destination, r.Gateway))
	}
	return strings.Join(parts, ", ")
}
