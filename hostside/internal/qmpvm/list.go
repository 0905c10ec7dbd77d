package qmpvm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

// netdevName finds the backends of vNICs in what `info network` prints. QMP has
// no query of backends; this is the one use of the human monitor's output, and
// it relies on nothing but that names stand in it as words.
var netdevName = regexp.MustCompile(`\b` + vnic.Prefix + `n[0-9a-f]{10}\b`)

// List implements [backend.VM].
func (v *VM) List(ctx context.Context) ([]backend.Device, error) {
	var devices []property
	var network string
	netdevs := &query{cmd: "human-monitor-command", args: args{"command-line": "info network"}, into: &network}
	known := v.nics.all()
	if err := v.conn.ask(ctx, qomList(peripheral, &devices), netdevs); err != nil {
		return nil, fmt.Errorf("list vnics of vm %s: %w", v.name, err)
	}
	out := map[vnic.ID]backend.Device{}
	var news []vnic.ID
	for _, p := range devices {
		id, ok := vnic.IDFromName(p.Name)
		if !ok || p.Name != id.DeviceID() {
			continue
		}
		d, ok := known[id]
		if !ok {
			news = append(news, id)
		}
		out[id] = backend.Device{ID: id, MAC: d.mac, Slot: d.slot, Frontend: true, Backend: !netdevs.found && d.backend}
	}
	for _, name := range netdevName.FindAllString(network, -1) {
		id, _ := vnic.IDFromName(name)
		d := out[id]
		d.ID, d.Backend = id, true
		out[id] = d
	}
	if err := v.learn(ctx, news, netdevs.found, out); err != nil {
		return nil, fmt.Errorf("list vnics of vm %s: %w", v.name, err)
	}
	list := slices.Collect(maps.Values(out))
	slices.SortFunc(list, func(a, b backend.Device) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// learn asks about devices that others made: before this connection, or beside
// it. netdevs says that out tells already which of them have backends.
func (v *VM) learn(ctx context.Context, news []vnic.ID, netdevs bool, out map[vnic.ID]backend.Device) error {
	type answer struct {
		mac, netdev string
		bus         string
		addr        int
	}
	answers := make([]answer, len(news))
	var queries []*query
	for i, id := range news {
		a, dev := &answers[i], devicePath(id)
		queries = append(queries, qomGet(dev, "mac", &a.mac), qomGet(dev, "netdev", &a.netdev),
			qomGet(dev, "parent_bus", &a.bus), qomGet(dev, "addr", &a.addr))
	}
	if err := v.conn.ask(ctx, queries...); err != nil {
		return err
	}
	for i, id := range news {
		a, d := answers[i], out[id]
		if a.bus == "" {
			delete(out, id) // it left meanwhile
			continue
		}
		d.MAC, _ = vnic.ParseMAC(a.mac)
		d.Slot = slots.Name(path.Base(a.bus), a.addr>>3)
		if !netdevs {
			d.Backend = a.netdev != ""
		}
		out[id] = d
		v.nics.learn(id, nic{mac: d.MAC, slot: d.Slot, backend: d.Backend})
	}
	return nil
}
