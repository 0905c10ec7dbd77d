package qmpvm

import (
	"context"
	"strings"
)

// Where QEMU keeps devices without an id, and the host bridges that are built in.
const (
	anonymous = "/machine/peripheral-anon"
	i440fx    = "/machine/i440fx"
)

// foundBus is a PCI bus in QEMU's object tree.
type foundBus struct {
	path    string // of the bus
	parent  string // path of the bridge
	name    string
	express bool
	handler string // who plugs devices there; empty: nobody
	list    []property
}

// scan looks for the buses that accept hotplugged devices. It walks QEMU's
// object tree rather than query-pci, which shows nothing behind a bridge until
// the firmware has numbered the buses, and not which bus can be plugged.
func (c *Conn) scan(ctx context.Context) ([]bus, error) {
	found, err := c.findBuses(ctx)
	if err != nil {
		return nil, err
	}
	var queries []*query
	for _, b := range found {
		queries = append(queries, qomList(b.path, &b.list), qomGet(b.path, "hotplug-handler", &b.handler))
	}
	if err := c.ask(ctx, queries...); err != nil {
		return nil, err
	}
	return c.findChildren(ctx, found)
}

// findBuses returns the PCI buses of bridges, and of the host bridge whose bus
// may be plugged. q35's pcie.0 never is.
func (c *Conn) findBuses(ctx context.Context) ([]*foundBus, error) {
	roots := []string{peripheral, anonymous}
	lists := make([][]property, len(roots))
	if err := c.ask(ctx, qomList(roots[0], &lists[0]), qomList(roots[1], &lists[1])); err != nil {
		return nil, err
	}
	parents := []string{i440fx}
	for i, list := range lists {
		for _, p := range list {
			if mayHaveBus(p) {
				parents = append(parents, roots[i]+"/"+p.Name)
			}
		}
	}
	children := make([][]property, len(parents))
	queries := make([]*query, len(parents))
	for i, path := range parents {
		queries[i] = qomList(path, &children[i])
	}
	if err := c.ask(ctx, queries...); err != nil {
		return nil, err
	}
	var found []*foundBus
	for i, list := range children {
		for _, p := range list {
			if p.Type == "child<PCI>" || p.Type == "child<PCIE>" {
				found = append(found, &foundBus{
					path: parents[i] + "/" + p.Name, parent: parents[i], name: p.Name, express: p.Type == "child<PCIE>",
				})
			}
		}
	}
	return found, nil
}

// mayHaveBus tells whether a device could be a bridge. Virtio devices aren't,
// and they are the many.
func mayHaveBus(p property) bool {
	return strings.HasPrefix(p.Type, "child<") && !strings.HasPrefix(p.Type, "child<virtio")
}

// child is a device on a bus.
type child struct {
	bus  *foundBus
	path string
	addr int // device number times 8 plus function
}

// findChildren asks what is plugged where.
func (c *Conn) findChildren(ctx context.Context, found []*foundBus) ([]bus, error) {
	var children []*child
	var paths, addrs []*query
	for _, b := range found {
		for _, p := range b.list {
			if b.handler != "" && strings.HasPrefix(p.Name, "child[") {
				d := &child{bus: b, addr: -1}
				children = append(children, d)
				paths = append(paths, qomGet(b.path, p.Name, &d.path))
			}
		}
	}
	if err := c.ask(ctx, paths...); err != nil {
		return nil, err
	}
	for _, d := range children {
		addrs = append(addrs, qomGet(d.path, "addr", &d.addr))
	}
	if err := c.ask(ctx, addrs...); err != nil {
		return nil, err
	}
	return assemble(found, children), nil
}

func assemble(found []*foundBus, children []*child) []bus {
	bridges := map[string]bool{}
	for _, b := range found {
		bridges[b.parent] = true
	}
	var buses []bus
	for _, b := range found {
		if b.handler == "" {
			continue
		}
		here := bus{name: b.name, class: classOf(b), taken: map[int]string{}, wired: map[int]bool{}}
		for _, d := range children {
			if d.bus == b && d.addr >= 0 {
				here.taken[d.addr>>3] = d.path
				here.wired[d.addr>>3] = here.wired[d.addr>>3] || bridges[d.path]
			}
		}
		buses = append(buses, here)
	}
	return buses
}

// classOf tells how a bus is plugged: under ACPI it has a selector.
func classOf(b *foundBus) class {
	acpi := false
	for _, p := range b.list {
		acpi = acpi || p.Name == "acpi-pcihp-bsel"
	}
	switch {
	case acpi && !b.express:
		return acpiBridge
	case acpi:
		return acpiPort
	case b.express:
		return nativePort
	}
	return shpcBridge
}
