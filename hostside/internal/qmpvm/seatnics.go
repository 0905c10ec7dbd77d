package qmpvm

import (
	"context"
	"fmt"
	"path"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// Device is a vNIC's device as QEMU has it: what makes another one like it, in
// another QEMU, into which its state can be loaded.
type Device struct {
	ID   vnic.ID
	args args // of device_add
}

// like are the properties of a device that shape its state in a migration, or that
// the guest sees.
var like = []string{"mac", "vectors", "mq", "host_mtu", "disable-legacy", "romfile", "multifunction"}

// Devices returns the devices of all vNICs, whoever made them.
func (s *Seat) Devices(ctx context.Context) (map[vnic.ID]Device, error) {
	var list []property
	if err := s.vm.conn.ask(ctx, qomList(peripheral, &list)); err != nil {
		return nil, fmt.Errorf("vnics of vm %s: %w", s.vm.name, err)
	}
	found := map[vnic.ID]Device{}
	for _, p := range list {
		id, ok := vnic.IDFromName(p.Name)
		if !ok || p.Name != id.DeviceID() {
			continue
		}
		d, err := s.device(ctx, id, kindOf(p))
		if err != nil {
			return nil, fmt.Errorf("vnic %s of vm %s: %w", id, s.vm.name, err)
		}
		if d.args != nil {
			found[id] = d
		}
	}
	return found, nil
}

// device asks for one device. It has no args when it left meanwhile.
func (s *Seat) device(ctx context.Context, id vnic.ID, kind string) (Device, error) {
	var bus string
	addr := -1
	values := make([]any, len(like))
	queries := []*query{qomGet(devicePath(id), "parent_bus", &bus), qomGet(devicePath(id), "addr", &addr)}
	for i, name := range like {
		queries = append(queries, qomGet(devicePath(id), name, &values[i]))
	}
	if err := s.vm.conn.ask(ctx, queries...); err != nil || bus == "" || addr < 0 {
		return Device{}, err
	}
	a := args{
		"driver": kind, "id": id.DeviceID(), "netdev": id.NetdevID(),
		"bus": path.Base(bus), "addr": fmt.Sprintf("%x.%x", addr>>3, addr&7),
	}
	for i, name := range like {
		if values[i] != nil {
			a[name] = values[i]
		}
	}
	return Device{ID: id, args: a}, nil
}

// Plug makes a device like d, with backend and files of n, in a QEMU that waits for
// its guest. A waiting QEMU can't be unplugged: what fails ends with it.
func (s *Seat) Plug(ctx context.Context, d Device, n backend.NIC) error {
	err := s.vm.tryNetdev(ctx, n)
	if err == nil {
		err = s.do(ctx, "device_add", d.args, nil)
	}
	if err != nil {
		return fmt.Errorf("plug vnic %s into the vm that waits: %w", d.ID, err)
	}
	return nil
}
