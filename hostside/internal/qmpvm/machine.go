package qmpvm

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// Machine is what two QEMU processes have in common when a guest can move from one to
// the other: its vNICs not included.
type Machine struct {
	Type    string // such as "pc-q35-7.2"
	CPUs    int
	Memory  uint64            // bytes
	Devices map[string]string // by id: kind and place
	Others  []string          // kinds of the devices without an id, in their order
}

// Machine asks QEMU for its machine.
func (s *Seat) Machine(ctx context.Context) (Machine, error) {
	m := Machine{Devices: map[string]string{}}
	var memory struct {
		Base    uint64 `json:"base-memory"`
		Plugged uint64 `json:"plugged-memory"`
	}
	var cpus []struct{}
	var with, without []property
	conn := s.vm.conn
	err := conn.ask(ctx, qomGet("/machine", "type", &m.Type), qomList(peripheral, &with), qomList(anonymous, &without),
		&query{cmd: "query-memory-size-summary", into: &memory}, &query{cmd: "query-cpus-fast", into: &cpus})
	if err != nil {
		return m, fmt.Errorf("machine of vm %s: %w", s.vm.name, err)
	}
	m.Type, m.CPUs, m.Memory = strings.TrimSuffix(m.Type, "-machine"), len(cpus), memory.Base+memory.Plugged
	for _, p := range without {
		if isChild(p) {
			m.Others = append(m.Others, kindOf(p))
		}
	}
	return m, s.places(ctx, with, m.Devices)
}

// places asks where devices with ids are, and leaves vNICs out.
func (s *Seat) places(ctx context.Context, list []property, devices map[string]string) error {
	type place struct {
		bus  string
		addr int
	}
	found := map[string]*place{}
	var queries []*query
	for _, p := range list {
		if id, ok := vnic.IDFromName(p.Name); !isChild(p) || ok && id.DeviceID() == p.Name {
			continue
		}
		at := &place{addr: -1}
		found[p.Name] = at
		devices[p.Name] = kindOf(p)
		queries = append(queries, qomGet(peripheral+"/"+p.Name, "parent_bus", &at.bus), qomGet(peripheral+"/"+p.Name, "addr", &at.addr))
	}
	if err := s.vm.conn.ask(ctx, queries...); err != nil {
		return err
	}
	for name, at := range found {
		if at.addr >= 0 {
			devices[name] += fmt.Sprintf(" at %s, device %02x.%x", path.Base(at.bus), at.addr>>3, at.addr&7)
		}
	}
	return nil
}

func isChild(p property) bool { return strings.HasPrefix(p.Type, "child<") }

func kindOf(p property) string { return strings.TrimSuffix(strings.TrimPrefix(p.Type, "child<"), ">") }

// Compare returns how to is another machine than m, as a [vnic.ErrDiffers].
func (m Machine) Compare(to Machine) error {
	var diffs []string
	diff := func(what string, a, b any) {
		if a != b {
			diffs = append(diffs, fmt.Sprintf("%s %v, not %v", what, b, a))
		}
	}
	diff("machine type", m.Type, to.Type)
	diff("cpus", m.CPUs, to.CPUs)
	diff("bytes of memory", m.Memory, to.Memory)
	for _, id := range slices.Sorted(maps.Keys(m.Devices)) {
		diff("device "+id+":", m.Devices[id], orNone(to.Devices[id]))
	}
	for _, id := range slices.Sorted(maps.Keys(to.Devices)) {
		if m.Devices[id] == "" {
			diff("device "+id+":", "none", to.Devices[id])
		}
	}
	diff("devices without an id", strings.Join(m.Others, " "), strings.Join(to.Others, " "))
	if len(diffs) == 0 {
		return nil
	}
	return fmt.Errorf("the machine that waits has %s: %w: start it with the same arguments as the running one, but for its sockets and -incoming defer",
		strings.Join(diffs, "; "), vnic.ErrDiffers)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
