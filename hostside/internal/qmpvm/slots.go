package qmpvm

import (
	"fmt"
	"sync"
)

// class orders slots by how fast a vNIC in them comes and goes.
type class int

const (
	acpiBridge class = iota // conventional bridge: plug and unplug 50 ms
	acpiPort                // PCIe port under ACPI: as fast, one slot a bus
	nativePort              // PCIe port: unplug takes 5 s
	shpcBridge              // conventional bridge with SHPC: the same, and rare guests drive it
	classes
)

// bus is a PCI bus that accepts hotplugged devices, as one look at QEMU saw it.
type bus struct {
	name  string
	class class
	taken map[int]string // device number -> QOM path of the device there
	wired map[int]bool   // device numbers that hold a bridge, and so are no places for a device
}

// devices are the device numbers that a bus has for hotplug. A PCIe port has
// but device 0; on a conventional bus 0 belongs to the bridge's SHPC.
func (b bus) devices() (first, last int) {
	if b.class == acpiPort || b.class == nativePort {
		return 0, 0
	}
	return 1, 31
}

// slot is a place for one device.
type slot struct {
	bus    string
	device int
	class  class
	owner  string // QOM path of its device; empty: free
	flight bool   // a plug is under way: what a look says doesn't count
	gone   bool   // its bus is gone
	queued bool   // stands in the queue of its class
	stamp  uint64 // when owner changed
}

func (s *slot) String() string { return slotName(s.bus, s.device) }

// slotName is how a slot is written: the device number as lspci does.
func slotName(bus string, device int) string { return fmt.Sprintf("%s/%02x", bus, device) }

// slotTable knows which slots are free without asking QEMU. Slots freed last are
// used last, which leaves the guest time to settle. It is safe for concurrent use.
type slotTable struct {
	mu     sync.Mutex // guards what follows
	clock  uint64     // counts changes
	all    map[string]*slot
	owners map[string]*slot
	free   [classes][]*slot // queues; entries that are no longer free are skipped
}

func newSlotTable() *slotTable {
	return &slotTable{all: map[string]*slot{}, owners: map[string]*slot{}}
}

// reserve gives owner the best free slot, in constant time. End it by land or release.
func (t *slotTable) reserve(owner string) (*slot, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.free {
		for len(t.free[c]) != 0 {
			s := t.free[c][0]
			t.free[c] = t.free[c][1:]
			s.queued = false
			if s.owner == "" && !s.gone {
				t.setOwnerLocked(s, owner)
				s.flight = true
				return s, true
			}
		}
	}
	return nil, false
}

// refused ends the reservation of a slot that QEMU didn't grant: somebody else
// has it. The next look tells whether that is so.
func (t *slotTable) refused(s *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.flight = false
	t.setOwnerLocked(s, "refused:"+s.String())
}

// land ends the reservation of owner: its device is there, or the next look tells.
func (t *slotTable) land(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.owners[owner]; ok {
		t.clock++
		s.stamp, s.flight = t.clock, false
	}
}

// release frees the slot of owner, if it has one.
func (t *slotTable) release(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.owners[owner]; ok {
		s.flight = false
		t.setOwnerLocked(s, "")
	}
}

// counts returns the slots in use, all of them, and whether any is under ACPI.
func (t *slotTable) counts() (used, total int, acpi bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		if s.owner != "" {
			used++
		}
		acpi = acpi || s.class == acpiBridge || s.class == acpiPort
	}
	return used, len(t.all), acpi
}

// mark returns the time for merge. Take it before looking.
func (t *slotTable) mark() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clock
}

// merge brings in what a look that began at mark saw. What changed since, or is
// changing, stays.
func (t *slotTable) merge(mark uint64, buses []bus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	for _, b := range buses {
		first, last := b.devices()
		for d := first; d <= last; d++ {
			if b.wired[d] {
				continue
			}
			s := t.slotLocked(b, d)
			seen[s.String()] = true
			if !s.flight && s.stamp <= mark && s.owner != b.taken[d] {
				t.setOwnerLocked(s, b.taken[d])
			}
		}
	}
	for key, s := range t.all {
		if !seen[key] && !s.flight && s.stamp <= mark {
			t.setOwnerLocked(s, "")
			s.gone = true
			delete(t.all, key)
		}
	}
}

func (t *slotTable) slotLocked(b bus, device int) *slot {
	s := &slot{bus: b.name, device: device, class: b.class}
	if old, ok := t.all[s.String()]; ok {
		return old
	}
	t.all[s.String()] = s
	if b.taken[device] == "" {
		t.enqueueLocked(s)
	}
	return s
}

func (t *slotTable) setOwnerLocked(s *slot, owner string) {
	t.clock++
	s.stamp = t.clock
	if t.owners[s.owner] == s {
		delete(t.owners, s.owner)
	}
	s.owner = owner
	if owner == "" {
		t.enqueueLocked(s)
		return
	}
	t.owners[owner] = s
}

func (t *slotTable) enqueueLocked(s *slot) {
	if !s.queued && !s.gone {
		s.queued = true
		t.free[s.class] = append(t.free[s.class], s)
	}
}
