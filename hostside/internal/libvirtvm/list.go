package libvirtvm

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// List implements [backend.VM].
func (v *VM) List(ctx context.Context) ([]backend.Device, error) {
	var list []backend.Device
	err := v.do(ctx, func(c *client) error {
		found, gone, err := v.inspect(ctx, c)
		for _, id := range gone {
			v.removed(id)
		}
		if err != nil {
			return err
		}
		list = make([]backend.Device, 0, len(found))
		for id, d := range found {
			list = append(list, backend.Device{ID: id, MAC: d.mac, Slot: d.slot, Backend: true, Frontend: true})
		}
		for id, o := range v.nics.allOrphans() {
			if _, ok := found[id]; !ok {
				list = append(list, backend.Device{ID: id, Backend: o.backend, Frontend: o.device})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list vnics of vm %s: %w", v.name, err)
	}
	slices.SortFunc(list, func(a, b backend.Device) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// SetLink implements [backend.VM].
func (v *VM) SetLink(ctx context.Context, id vnic.ID, up bool) error {
	err := v.do(ctx, func(c *client) error {
		d, err := v.fetch(ctx, c)
		if err != nil {
			return err
		}
		text, ok := d.withLink(id, up)
		if !ok {
			return vnic.ErrNotFound
		}
		return c.call(ctx, func() error { return c.lv.DomainUpdateDeviceFlags(v.run, text, live) })
	})
	if err != nil {
		return fmt.Errorf("set link of vnic %s in vm %s: %w", id, v.name, err)
	}
	return nil
}
