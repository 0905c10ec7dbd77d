package guestside

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// record is what the agent was told of a vNIC.
type record struct {
	id    vnic.ID
	mac   vnic.MAC
	netns string // as the order named it
	// inPod says that the vNIC was moved into the pod. Else the order was to
	// prepare, and the vNIC was not in the pod then.
	inPod  bool
	pci    string
	driver string
	mtu    int // in bytes, before the move; 0: not known
}

// records are keyed by MAC.
type records struct {
	mu sync.Mutex
	m  map[vnic.MAC]record // guarded by mu
}

func newRecords() *records { return &records{m: map[vnic.MAC]record{}} }

func (rs *records) get(mac vnic.MAC) (record, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.m[mac]
	return r, ok
}

func (rs *records) put(r record) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.m[r.mac] = r
}

func (rs *records) drop(mac vnic.MAC) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.m, mac)
}

func (rs *records) all() []record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.Collect(maps.Values(rs.m))
}

// locks has one lock for each vNIC that a call is about.
type locks struct {
	mu sync.Mutex
	m  map[vnic.MAC]*lock // guarded by mu
}

type lock struct {
	held  chan struct{} // has a token while held
	users int           // holder and waiters; guarded by locks.mu
}

func newLocks() *locks { return &locks{m: map[vnic.MAC]*lock{}} }

// acquire waits until no one else holds the lock of that vNIC. The caller
// calls the function that it returns once.
func (ls *locks) acquire(ctx context.Context, mac vnic.MAC) (release func(), err error) {
	ls.mu.Lock()
	l := ls.m[mac]
	if l == nil {
		l = &lock{held: make(chan struct{}, 1)}
		ls.m[mac] = l
	}
	l.users++
	ls.mu.Unlock()

	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; ls.leave(mac, l) }, nil
	case <-ctx.Done():
		ls.leave(mac, l)
		return nil, fmt.Errorf("await another call for vnic %s: %w", mac, context.Cause(ctx))
	}
}

func (ls *locks) leave(mac vnic.MAC, l *lock) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(ls.m, mac)
	}
}
