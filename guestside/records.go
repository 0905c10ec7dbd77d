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
	inPod bool
	// handover says that the vNIC is for an engine that moves it by itself.
	handover bool
	// delivered says that a vNIC of a handover was seen, and left that it is not in
	// the first namespace any more.
	delivered, left bool
	pci             string
	driver          string
	mtu             int // in bytes, before the move; 0: not known
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

// edit changes the record of a vNIC, if there is one.
func (rs *records) edit(mac vnic.MAC, fn func(r *record)) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r, ok := rs.m[mac]; ok {
		fn(&r)
		rs.m[mac] = r
	}
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
