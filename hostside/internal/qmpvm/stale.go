package qmpvm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// A guest under ACPI is told of a device that shall leave again whenever anything
// else happens before it has let go of it. It gets round to that second word when
// the device is gone, and powers off what it then finds in the slot. That is a
// vNIC that just came there, where slots are few: it is put back.
const (
	staleFor   = 10 * time.Second // how long a second word may come after a device has left
	staleTries = 8                // how often a vNIC is put back
)

var errGoesAgain = errors.New("the guest powers its slot off again and again")

// stale remembers which slots devices have just left. The zero value is ready, and
// is safe for concurrent use.
type stale struct {
	mu    sync.Mutex
	since map[string]time.Time // guarded by mu
}

// left notes that a device has left a slot.
func (s *stale) left(slot string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since == nil {
		s.since = map[string]time.Time{}
	}
	s.since[slot] = time.Now()
}

// has tells whether a device has just left the slot.
func (s *stale) has(slot string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.since[slot]
	if ok && time.Since(t) > staleFor {
		delete(s.since, slot)
		return false
	}
	return ok
}

// release frees the slot of a device that is gone.
func (v *VM) release(id vnic.ID) {
	if d, ok := v.nics.get(id); ok {
		v.stale.left(d.slot)
	}
	v.slots.Release(devicePath(id))
}

// putBack tells whether a device that is gone has to be put back. If so, somebody
// is about to do it.
func (v *VM) putBack(id vnic.ID) bool {
	d, ok := v.nics.get(id)
	if !ok || !v.stale.has(d.slot) {
		return false
	}
	lost, adding := v.nics.lose(id)
	if lost {
		v.slots.Hold(d.slot, devicePath(id))
	}
	if lost && !adding { // else its plug notices
		v.wg.Go(func() { v.replug(id) })
	}
	return lost
}

// replug puts a device back.
func (v *VM) replug(id vnic.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	unlock, err := v.nics.lock(ctx, id)
	if err != nil {
		v.log.Warn("vnic stays away", "id", id, "error", err)
		v.slots.Land(devicePath(id))
		return
	}
	defer unlock()
	d, ok := v.nics.get(id)
	if !ok || !d.lost {
		v.slots.Land(devicePath(id))
		return // unplugged meanwhile
	}
	v.log.Info("guest powered the slot off once too often, vnic is put back", "id", id, "slot", d.slot)
	err = v.addAgain(ctx, id, d)
	if err == nil {
		return
	}
	v.log.Warn("vnic can't be put back", "id", id, "error", err)
	v.release(id)
	v.nics.gone(id)
	if err := v.deleteNetdev(ctx, id); err != nil {
		v.log.Warn("backend stays after a removal", "id", id, "error", err)
	}
	v.events.Push(vnic.Event{Kind: vnic.EventRemoved, VM: v.name, ID: id})
}

// addAgain adds a device as it was, until it stays.
func (v *VM) addAgain(ctx context.Context, id vnic.ID, d nic) error {
	v.slots.Hold(d.slot, devicePath(id))
	defer v.slots.Land(devicePath(id)) // it is there, or the caller releases the slot
	for range staleTries {
		v.nics.update(id, func(d *nic) { d.lost, d.adding = false, true })
		err := v.run(ctx, "device_add", d.args)
		if err != nil && !duplicateID(err) { // it was another one that left
			return err
		}
		if lost, ok := v.nics.added(id); !ok || !lost {
			return nil // stays, or leaves because it was asked to
		}
	}
	return errGoesAgain
}
