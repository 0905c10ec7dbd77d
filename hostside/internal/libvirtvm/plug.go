package libvirtvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// undoLimit bounds undoing a plug: a native unplug takes over five seconds.
const undoLimit = 15 * time.Second

// plugTries bounds how often a plug is tried when something is in its way.
const plugTries = 8

// live is the flag of changes to the running domain alone: a domain that starts
// again has no pods.
const live = libvirt.DomainDeviceModifyLive

// Plug implements [backend.VM]. The tap must exist; n.Files may be empty, and are
// not used.
func (v *VM) Plug(ctx context.Context, n backend.NIC) (string, error) {
	slot, err := v.plug(ctx, n)
	if err != nil {
		return "", fmt.Errorf("plug vnic %s into vm %s: %w", n.ID, v.name, err)
	}
	return slot, nil
}

func (v *VM) plug(ctx context.Context, n backend.NIC) (string, error) {
	if err := check(n); err != nil {
		return "", err
	}
	unlock, err := v.nics.lock(ctx, n.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	if d, ok := v.nics.get(n.ID); ok && !d.removing {
		return d.slot, v.err()
	} else if ok || v.nics.isOrphan(n.ID) {
		if err := v.remove(ctx, n.ID); err != nil {
			return "", fmt.Errorf("remove its incomplete predecessor: %w", err)
		}
	}
	slot, call, err := v.add(ctx, n)
	if err != nil {
		return "", v.undo(ctx, n.ID, call, err)
	}
	return slot, nil
}

func check(n backend.NIC) error {
	switch {
	case n.Queues < 1 || n.Queues > vnic.MaxQueues:
		return fmt.Errorf("queues %d is not in 1-%d: %w", n.Queues, vnic.MaxQueues, vnic.ErrInvalid)
	case len(n.Files) != 0 && len(n.Files) != n.Queues:
		return fmt.Errorf("%d tap files for %d queues: %w", len(n.Files), n.Queues, vnic.ErrInvalid)
	case n.MAC.IsZero():
		return fmt.Errorf("no mac: %w", vnic.ErrInvalid)
	case n.Tap == "":
		return fmt.Errorf("no tap: %w", vnic.ErrInvalid)
	}
	return nil
}

// reserve takes a slot, and looks at the domain anew only when none seems free.
func (v *VM) reserve(ctx context.Context, id vnic.ID) (*slots.Slot, error) {
	if s, ok := v.slots.Reserve(alias(id)); ok {
		return s, nil
	}
	if err := v.relook(ctx); err != nil {
		return nil, err
	}
	if s, ok := v.slots.Reserve(alias(id)); ok {
		return s, nil
	}
	used, total, _ := v.slots.Counts()
	return nil, &vnic.NoSlotError{VM: v.name, Used: used, Total: total}
}

// add attaches the device and returns its slot. On error something may be left:
// undo it, when call, the last one made, has ended.
func (v *VM) add(ctx context.Context, n backend.NIC) (name string, call *pending, err error) {
	// libvirt makes backend and device in one step: this is before both.
	if err := failpoint.Hit("plug.netdev"); err != nil {
		return "", nil, err
	}
	c, err := v.connection(ctx, nil)
	if err != nil {
		return "", nil, err
	}
	for try := 0; try < plugTries; try++ {
		s, e := v.reserve(ctx, n.ID)
		if e != nil {
			return "", call, errors.Join(e, err)
		}
		v.nics.put(n.ID, nic{mac: n.MAC, slot: s.String(), adding: true})
		text, e := ifaceXML(n, v.busNumber(s.Bus), s.Device)
		if e != nil {
			return "", call, e
		}
		lv := c.lv // this attempt's, for as long as it takes
		call = c.start(func() error { return lv.DomainAttachDeviceFlags(v.run, text, uint32(live)) })
		if err = call.wait(ctx); err == nil {
			name, err = v.landed(n.ID)
			return name, call, err
		}
		var done bool
		if c, done, e = v.settle(ctx, c, n, s, err); e != nil {
			return "", call, e
		}
		if done {
			name, err = v.landed(n.ID)
		}
		if !done || name != s.String() {
			v.slots.Cancel(s, alias(n.ID))
		}
		if done {
			return name, call, err
		}
		if strangers(err) {
			try-- // as many times as there are slots: this one isn't tried again
		}
	}
	return "", call, fmt.Errorf("%d attempts failed: %w", plugTries, err)
}

// settle makes the best of an attach that failed: done says that the device is
// there all the same, no error that another attempt is worth it.
func (v *VM) settle(ctx context.Context, c *client, n backend.NIC, s *slots.Slot, cause error) (next *client, done bool, err error) {
	log := v.log.With("id", n.ID, "slot", s.String(), "error", cause)
	switch {
	case c.lost(cause):
		if c, err = v.connection(ctx, c); err != nil {
			return c, false, err
		}
		log.Info("libvirtd was lost in the middle of a plug")
		done, err = v.settled(ctx, n)
		return c, done, err
	case sameAlias(cause):
		log.Info("the device is there already")
		done, err = v.settled(ctx, n)
		return c, done, err
	case duplicateID(cause):
		log.Info("what an interrupted plug left makes way")
		return c, false, v.removeOrphan(ctx, n.ID)
	case tapStale(cause):
		log.Info("the tap of an interrupted plug makes way")
		return c, false, v.freeTap(ctx, n)
	case slotUnusable(cause):
		log.Info("slot refused, trying another")
		if strangers(cause) {
			v.refuse(s.String())
		}
		v.slots.Refused(s)
		return c, false, v.relook(ctx)
	}
	return c, false, v.explain(ctx, cause)
}

// settled tells whether the domain has the device just as it shall be. What it
// has else of it is removed.
func (v *VM) settled(ctx context.Context, n backend.NIC) (bool, error) {
	d, there, err := v.has(ctx, n.ID)
	if err != nil {
		return false, err
	}
	if there && d.mac == n.MAC {
		return true, nil
	}
	return false, v.clearWay(ctx, n.ID, there)
}

// clearWay removes what there is of a vNIC that shall be plugged.
func (v *VM) clearWay(ctx context.Context, id vnic.ID, there bool) error {
	if there || v.nics.isOrphan(id) {
		return v.remove(ctx, id)
	}
	return nil
}

// has tells whether the domain has a vNIC now.
func (v *VM) has(ctx context.Context, id vnic.ID) (d nic, there bool, err error) {
	err = v.do(ctx, func(c *client) error {
		found, gone, err := v.inspect(ctx, c)
		for _, id := range gone {
			v.removed(id)
		}
		d, there = found[id]
		return err
	})
	return d, there, err
}

// relook looks at the domain anew.
func (v *VM) relook(ctx context.Context) error {
	_, _, err := v.has(ctx, "")
	return err
}

// landed ends a plug that worked.
func (v *VM) landed(id vnic.ID) (slot string, err error) {
	if err := failpoint.Hit("plug.device"); err != nil {
		return "", err
	}
	v.slots.Land(alias(id))
	if gone := v.err(); gone != nil {
		return "", gone
	}
	v.nics.update(id, func(d *nic) { d.adding, slot = false, d.slot })
	return slot, nil
}

// undo takes away what a failed plug left, whatever became of ctx.
func (v *VM) undo(ctx context.Context, id vnic.ID, call *pending, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	v.slots.Land(alias(id))
	if call == nil || v.err() != nil {
		v.forget(id)
		return cause
	}
	// The attach may yet succeed, after the detach: libvirt keeps no order.
	_ = call.wait(ctx) // how it ends doesn't matter
	v.nics.update(id, func(d *nic) { d.adding = false })
	if err := v.remove(ctx, id); err != nil && !errors.Is(err, vnic.ErrVMGone) {
		return errors.Join(cause, fmt.Errorf("undo: %w", err))
	}
	return cause
}
