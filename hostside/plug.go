package hostside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// undoLimit is for undoing a plug that failed, whatever became of its context.
const undoLimit = 15 * time.Second

// Plug gives a VM a vNIC: a tap, its packet filter, its bridge port, and the
// device in the VM, in this order, so that nothing unfiltered is ever sent. A
// Plug that fails undoes what it did. Repeating it with the same ID is
// harmless, puts filter, bridge port, published ports and bandwidth right, and
// returns the same port. One that is repeated and fails for a published port
// leaves those that were in force. A parked one has neither filter nor bridge port:
// nothing comes in or goes out before [Host.Unpark].
//
// Errors: [vnic.ErrUnknownVM], [vnic.ErrUnknownNetwork], [vnic.ErrVMGone], a
// [vnic.NoSlotError], [vnic.ErrPortTaken], [vnic.ErrInvalid],
// [vnic.ErrUnsupported].
func (h *Host) Plug(ctx context.Context, p vnic.Plug) (vnic.Port, error) {
	p, n, v, err := h.checkPlug(p)
	if err != nil {
		return vnic.Port{}, fmt.Errorf("plug vnic %s: %w", p.ID, err)
	}
	unlock, err := h.ids.Lock(ctx, p.ID)
	if err != nil {
		return vnic.Port{}, fmt.Errorf("plug vnic %s: %w", p.ID, err)
	}
	defer unlock()
	slot, err := h.plugLocked(ctx, v, n, p)
	if err != nil {
		return vnic.Port{}, fmt.Errorf("plug vnic %s into vm %s: %w", p.ID, p.VM, err)
	}
	return vnic.Port{VM: p.VM, ID: p.ID, MAC: p.MAC, Slot: slot, Tap: true, Plug: true, Bridged: !p.Parked}, nil
}

// checkPlug fills in defaults and looks up what p names.
func (h *Host) checkPlug(p vnic.Plug) (vnic.Plug, vnic.Network, *vm, error) {
	if _, err := vnic.ParseID(string(p.ID)); err != nil {
		return p, vnic.Network{}, nil, err
	}
	if _, err := vnic.ParseMAC(p.MAC.String()); err != nil {
		return p, vnic.Network{}, nil, err
	}
	v, err := h.vm(p.VM)
	if err != nil {
		return p, vnic.Network{}, nil, err
	}
	n, err := h.network(p.Network)
	if err != nil {
		return p, n, nil, err
	}
	if p.MTU == 0 {
		p.MTU = n.MTU
	}
	if p.MTU < vnic.MinMTU || p.MTU > n.MTU {
		return p, n, nil, fmt.Errorf("mtu %d is not in %d-%d: %w", p.MTU, vnic.MinMTU, n.MTU, vnic.ErrInvalid)
	}
	if p.Queues == 0 {
		p.Queues = 1
	}
	if p.Queues < 1 || p.Queues > vnic.MaxQueues {
		return p, n, nil, fmt.Errorf("queues %d is not in 1-%d: %w", p.Queues, vnic.MaxQueues, vnic.ErrInvalid)
	}
	if err := cmp.Or(checkOptions(p), checkKind(p, n, v.VM)); err != nil {
		return p, n, nil, err
	}
	return p, n, v, nil
}

func (h *Host) plugLocked(ctx context.Context, v *vm, n vnic.Network, p vnic.Plug) (slot string, err error) {
	if _, err := v.connection(ctx, nil); err != nil {
		return "", err // before anything is made for it
	}
	steps := undo{log: h.log.With("id", p.ID, "vm", p.VM)}
	defer func() {
		if err != nil {
			steps.run(ctx)
		}
	}()
	tap, err := h.openTap(ctx, n, p)
	if errors.Is(err, fs.ErrExist) {
		if slot, ok, err := h.again(ctx, v, n, p); ok || err != nil {
			return slot, err
		}
		tap, err = h.openTap(ctx, n, p)
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, tap.Close()) }()
	steps.add("delete tap", func(ctx context.Context) error { return h.links.DeleteTap(ctx, p.ID) })
	if err := failpoint.Hit("plug.tap"); err != nil {
		return "", err
	}
	if !p.Parked { // nothing may pass yet, and nothing does
		err = h.wire(ctx, n, p, &steps)
	}
	if err != nil {
		return "", err
	}
	steps.add("unplug device", func(ctx context.Context) error { return h.unplugDevice(ctx, v, p.ID) })
	err = v.doInSlot(ctx, func(b backend.VM) (err error) {
		if o, ok := b.(backend.TapOpener); ok {
			if err := tap.Persist(o.TapOwner()); err != nil {
				return err
			}
		}
		slot, err = b.Plug(ctx, nic(p, tap))
		return err
	})
	return slot, err
}

// wire puts the filter in force, with ports and bandwidth, and makes the tap a port.
func (h *Host) wire(ctx context.Context, n vnic.Network, p vnic.Plug, steps *undo) error {
	if err := h.filter(ctx, n, p, steps); err != nil {
		return err
	}
	if err := failpoint.Hit("plug.guard"); err != nil {
		return err
	}
	steps.add("leave bridge", func(ctx context.Context) error { return h.links.Leave(ctx, p.ID) })
	if err := h.links.Join(ctx, p.ID.TapName(), n, p.MAC); err != nil {
		return err
	}
	return failpoint.Hit("plug.bridge")
}

// again is a Plug whose tap exists. When the device does too, it puts filter
// and port right and is done. Else it removes what is left of an earlier one.
func (h *Host) again(ctx context.Context, v *vm, n vnic.Network, p vnic.Plug) (slot string, done bool, err error) {
	var devices []backend.Device
	err = v.do(ctx, func(b backend.VM) (err error) {
		devices, err = b.List(ctx)
		return err
	})
	if err != nil {
		return "", false, err
	}
	for _, d := range devices {
		if d.ID == p.ID && d.Frontend && d.Backend && d.MAC == p.MAC {
			if p.Parked {
				return d.Slot, true, h.parkLocked(ctx, p.ID)
			}
			return d.Slot, true, h.wire(ctx, n, p, &undo{})
		}
	}
	h.log.Info("remove what is left of an earlier plug", "id", p.ID, "vm", p.VM)
	if err := h.unplugDevice(ctx, v, p.ID); err != nil {
		return "", false, err
	}
	return "", false, h.links.DeleteTap(ctx, p.ID)
}

func nic(p vnic.Plug, t port.Tap) backend.NIC {
	return backend.NIC{ID: p.ID, MAC: p.MAC, MTU: p.MTU, Queues: p.Queues, Tap: t.Name, Files: t.Files, Vhost: t.Vhost}
}
