package guestside

import (
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
