package qmpvm

import (
	"context"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/hostside/internal/slots"
)

// Where QEMU keeps devices without an id, and the host bridges that are built in.
const (
	anonymous = "/machine/peripheral-anon"
	i440fx    = "/machine/i440fx"
	q35       = "/machine/q35"
)

// shpcBar is the part of a bridge that has a standard hotplug controller. Those
// number their slots from 1.
const shpcBar = "shpc-bar[0]"

// foundBus is a PCI bus in QEMU's object tree.
type foundBus struct {
	path    string // of the bus
	parent  string // path of the bridge
	name    string
	express bool
	noZero  bool   // device number 0 is no place for a device
	closed  bool   // for other things than vNICs
	handler string // who plugs devices there; empty: nobody
	list    []property
}

// scan looks for the buses that accept hotplugged devices. It walks QEMU's
// object tree rather than query-pci, which shows nothing behind a bridge until
// the firmware has numbered the buses, and not which bus can be plugged.
func (c *Conn) scan(ctx context.Context) ([]slots.Bus, error) {
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

// findBuses returns the PCI buses of host bridges and of devices.
func (c *Conn) findBuses(ctx context.Context) ([]*foundBus, error) {
	roots := []string{peripheral, anonymous}
	lists := make([][]property, len(roots))
	if err := c.ask(ctx, qomList(roots[0], &lists[0]), qomList(roots[1], &lists[1])); err != nil {
		return nil, err
	}
	parents := []property{{Name: i440fx}, {Name: q35}}
	for i, list := range lists {
		for _, p := range list {
			if mayHaveBus(p) {
				parents = append(parents, property{Name: roots[i] + "/" + p.Name, Type: p.Type})
			}
		}
	}
	return c.busesOf(ctx, parents)
}

// mayHaveBus tells whether a device could be a bridge. Virtio devices aren't,
// and they are the many.
func mayHaveBus(p property) bool {
	return strings.HasPrefix(p.Type, "child<") && !strings.HasPrefix(p.Type, "child<virtio")
}

// busesOf returns the PCI buses among the children of devices, which are named
// by path. QEMU lets anything be plugged into the bus of a switch's upstream
// port, but the place is for downstream ports.
func (c *Conn) busesOf(ctx context.Context, parents []property) ([]*foundBus, error) {
	children := make([][]property, len(parents))
	queries := make([]*query, len(parents))
	for i, p := range parents {
		queries[i] = qomList(p.Name, &children[i])
	}
	if err := c.ask(ctx, queries...); err != nil {
		return nil, err
	}
	var found []*foundBus
	for i, list := range children {
		parent := parents[i]
		shpc := slices.ContainsFunc(list, func(p property) bool { return p.Name == shpcBar })
		for _, p := range list {
			if p.Type == "child<PCI>" || p.Type == "child<PCIE>" {
				found = append(found, &foundBus{
					path: parent.Name + "/" + p.Name, parent: parent.Name, name: p.Name, express: p.Type == "child<PCIE>",
					noZero: shpc || parent.Name == i440fx, closed: strings.HasSuffix(parent.Type, "-upstream>"),
				})
			}
		}
	}
	return found, nil
}

// child is a device on a bus.
type child struct {
	bus     *foundBus
	path    string
	addr    int // device number times 8 plus function
	vectors int // of a virtio device
}

// findChildren asks what is plugged where.
func (c *Conn) findChildren(ctx context.Context, found []*foundBus) ([]slots.Bus, error) {
	var children []*child
	var paths, addrs []*query
	for _, b := range found {
		for _, p := range b.list {
			if b.handler != "" && strings.HasPrefix(p.Name, "child[") {
				d := &child{bus: b, addr: -1, vectors: 1}
				children = append(children, d)
				paths = append(paths, qomGet(b.path, p.Name, &d.path))
			}
		}
	}
	if err := c.ask(ctx, paths...); err != nil {
		return nil, err
	}
	for _, d := range children {
		addrs = append(addrs, qomGet(d.path, "addr", &d.addr), qomGet(d.path, "vectors", &d.vectors))
	}
	if err := c.ask(ctx, addrs...); err != nil {
		return nil, err
	}
	return assemble(found, children), nil
}

// assemble leaves out the buses that nobody plugs, and those that can't be named:
// a port without an id may well be called pcie.0, like the root of all. Devices
// without an id never leave, bridges neither.
func assemble(found []*foundBus, children []*child) []slots.Bus {
	bridges, named := map[string]bool{}, map[string]int{}
	for _, b := range found {
		bridges[b.parent] = true
		named[b.name]++
	}
	var buses []slots.Bus
	for _, b := range found {
		if b.handler == "" || b.closed || named[b.name] > 1 {
			continue
		}
		here := slots.Bus{
			Name: b.name, Class: b.class(), NoZero: b.noZero,
			Taken: map[int]string{}, Vectors: map[int]int{}, Wired: map[int]bool{},
		}
		for _, d := range children {
			if d.bus == b && d.addr >= 0 {
				here.Taken[d.addr>>3] = d.path
				here.Vectors[d.addr>>3] += d.vectors
				here.Wired[d.addr>>3] = here.Wired[d.addr>>3] || bridges[d.path] || !strings.HasPrefix(d.path, peripheral+"/")
			}
		}
		buses = append(buses, here)
	}
	return buses
}

// class tells how a bus is plugged. A bridge with its own hotplug handles its
// bus itself; under ACPI the chipset does. That a bus has an ACPI selector says
// less: those behind a pxb-pcie have one, and handle themselves.
func (b *foundBus) class() slots.Class {
	return slots.ClassOf(b.express, b.handler != b.parent)
}
