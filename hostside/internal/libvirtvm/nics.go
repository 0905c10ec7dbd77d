package libvirtvm

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/vnic"
)

// nic is a vNIC's device.
type nic struct {
	mac      vnic.MAC
	slot     string
	adding   bool // its plug is under way
	removing bool // the guest was asked to let go
}

// nics remembers a VM's vNICs, holds one lock each, and knows who waits for
// a removal. It is safe for concurrent use.
type nics struct {
	locks keylock.Locks[vnic.ID]

	mu      sync.Mutex // guards what follows
	known   map[vnic.ID]nic
	orphans map[vnic.ID]orphan // devices and backends that QEMU has and libvirt doesn't know
	waits   map[vnic.ID]chan error
}

func newNICs() *nics {
	return &nics{known: map[vnic.ID]nic{}, orphans: map[vnic.ID]orphan{}, waits: map[vnic.ID]chan error{}}
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

func (n *nics) put(id vnic.ID, d nic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[id] = d
}

// update changes what is known of id, if anything is.
func (n *nics) update(id vnic.ID, change func(*nic)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d, ok := n.known[id]; ok {
		change(&d)
		n.known[id] = d
	}
}

func (n *nics) forget(id vnic.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, id)
	delete(n.orphans, id)
}

// isOrphan tells whether QEMU alone has something of id.
func (n *nics) isOrphan(id vnic.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.orphans[id]
	return ok
}

func (n *nics) allOrphans() map[vnic.ID]orphan {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.orphans)
}

func (n *nics) setOrphans(o map[vnic.ID]orphan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.orphans = o
}

// learn compares what is known with what a look found, and returns those that
// are gone, though nobody works on them.
func (n *nics) learn(found map[vnic.ID]nic) (gone []vnic.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, d := range found {
		if old, ok := n.known[id]; ok {
			d.adding, d.removing = old.adding, old.removing
		}
		n.known[id] = d
	}
	for id, d := range n.known {
		if _, there := found[id]; there || d.adding {
			continue
		}
		if !n.tellLocked(id, nil) {
			gone = append(gone, id)
		}
	}
	return gone
}

// await registers the waiter for the removal of id: it is told nil when that seems
// to have happened, or why not. Call cancel when done. One waiter an ID: hold its lock.
func (n *nics) await(id vnic.ID) (result <-chan error, cancel func()) {
	ch := make(chan error, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waits[id] = ch
	return ch, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waits, id)
	}
}

// tell tells the waiter of id, and reports whether there is one.
func (n *nics) tell(id vnic.ID, err error) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tellLocked(id, err)
}

func (n *nics) tellLocked(id vnic.ID, err error) bool {
	ch, ok := n.waits[id]
	if ok {
		select {
		case ch <- err:
		default: // it has one to read already
		}
	}
	return ok
}
