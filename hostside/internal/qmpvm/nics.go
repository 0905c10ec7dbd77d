package qmpvm

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/vnic"
)

// nic is a vNIC's device that exists, or is just being added.
type nic struct {
	mac      vnic.MAC
	slot     string
	backend  bool
	adding   bool // device_add has not been answered
	removing bool // device_del was sent
	lost     bool // it is gone and has to be put back
	args     args // what it was made of; nil when others made it
}

// nics remembers the devices of a VM, so that the fast path asks nothing. It
// also holds who waits for a removal, and one lock an ID. It is safe for
// concurrent use.
type nics struct {
	locks keylock.Locks[vnic.ID]

	mu    sync.Mutex // guards what follows
	known map[vnic.ID]nic
	waits map[vnic.ID]*removal
	late  map[vnic.ID]int  // events yet to come of devices that are known to be gone
	bare  map[vnic.ID]bool // whose devices were detached, and backends not yet removed
}

// removal is what somebody waits for.
type removal struct {
	result  chan error
	deleted bool // QEMU's last event of the device is here
}

func newNICs() *nics {
	return &nics{known: map[vnic.ID]nic{}, waits: map[vnic.ID]*removal{}, late: map[vnic.ID]int{}, bare: map[vnic.ID]bool{}}
}

// lock waits until no other operation on id is under way.
func (n *nics) lock(ctx context.Context, id vnic.ID) (unlock func(), err error) {
	unlock, err = n.locks.Lock(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("await another operation on vnic %s: %w", id, err)
	}
	return unlock, nil
}

func (n *nics) get(id vnic.ID) (nic, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, ok := n.known[id]
	return d, ok
}

func (n *nics) all() map[vnic.ID]nic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.known)
}

func (n *nics) put(id vnic.ID, d nic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[id] = d
	delete(n.bare, id)
}

// learn notes a device that was found, unless it is known.
func (n *nics) learn(id vnic.ID, d nic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.known[id]; !ok {
		n.known[id] = d
		delete(n.bare, id)
	}
}

// update changes what is known of id, and reports whether anything is.
func (n *nics) update(id vnic.ID, change func(*nic)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, ok := n.known[id]
	if ok {
		change(&d)
		n.known[id] = d
	}
	return ok
}

// lose notes that the device of id is gone and has to be put back, unless somebody
// wants it gone. It tells whether its plug is still under way.
func (n *nics) lose(id vnic.ID) (lost, adding bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, ok := n.known[id]
	if !ok || d.args == nil || d.removing || n.waits[id] != nil {
		return false, false
	}
	d.lost = true
	n.known[id] = d
	return true, d.adding
}

// added notes that device_add was answered, and tells whether the device was lost
// meanwhile. It is not known when it has left for good.
func (n *nics) added(id vnic.ID) (lost, ok bool) {
	ok = n.update(id, func(d *nic) { lost, d.adding = d.lost, d.lost })
	return lost, ok
}

// setDetached notes whether nothing but the backend is left of id.
func (n *nics) setDetached(id vnic.ID, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.bare, id); is {
		n.bare[id] = true
	}
}

// isDetached tells whether nothing but the backend is left of id, if that.
func (n *nics) isDetached(id vnic.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bare[id]
}

// await registers a waiter for the removal of id: nil once the device is gone,
// errLeaving when it seems to be, or why the guest refuses. Call cancel when done.
// One waiter an ID: hold its lock.
func (n *nics) await(id vnic.ID) (result <-chan error, cancel func()) {
	ch := make(chan error, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waits[id] = &removal{result: ch}
	return ch, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waits, id)
	}
}

// gone notes that the device of id is gone, tells its waiter, and reports
// whether nobody cares for the rest: then the removal is the guest's own.
func (n *nics) gone(id vnic.ID) (unexpected bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, known := n.known[id]
	delete(n.known, id)
	if w, ok := n.waits[id]; ok {
		w.deleted = true
		tell(w.result, nil)
		return false
	}
	return known && !d.adding
}

// left notes that the device of id, whose removal somebody waits for, is gone,
// before QEMU's last event says so.
func (n *nics) left(id vnic.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, id)
	if w, ok := n.waits[id]; ok && !w.deleted {
		n.late[id]++
	}
}

// overdue reports whether an event of the removal of id is about a device that
// was known to be gone; there may be another one of this id by now.
func (n *nics) overdue(id vnic.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late[id] == 0 {
		return false
	}
	if n.late[id]--; n.late[id] == 0 {
		delete(n.late, id)
	}
	return true
}

// tell tells the waiter of id, if there is one, what happens to the device.
func (n *nics) tell(id vnic.ID, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w, ok := n.waits[id]; ok {
		tell(w.result, err)
	}
}

// tell leaves the first result in ch.
func tell(ch chan error, err error) {
	select {
	case ch <- err:
	default:
	}
}
