package slots

import "sync"

// Table knows which slots are free. Slots freed last are used last, which leaves
// the guest time to settle. It is safe for concurrent use.
type Table struct {
	mu     sync.Mutex // guards what follows
	clock  uint64     // counts changes
	all    map[string]*Slot
	owners map[string]*Slot
	used   int              // slots with owners
	free   [classes][]*Slot // queues; entries that are no longer free are skipped
}

// New returns a table without slots: merge a look at the machine.
func New() *Table {
	return &Table{all: map[string]*Slot{}, owners: map[string]*Slot{}}
}

// Reserve gives owner the best free slot, in constant time. End it by Land,
// Release or Refused. There is none when [MaxVNICs] are in use: one more might
// be the end of QEMU.
func (t *Table) Reserve(owner string) (*Slot, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used >= MaxVNICs {
		return nil, false
	}
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

// Refused ends the reservation of a slot that the hypervisor didn't grant:
// somebody else has it, or a device there is still going away. The next look
// tells whether that is so.
func (t *Table) Refused(s *Slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.flight = false
	t.setOwnerLocked(s, "refused:"+s.String())
}

// Land ends the reservation of owner: its device is there, or the next look tells.
func (t *Table) Land(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.owners[owner]; ok {
		t.clock++
		s.stamp, s.flight = t.clock, false
	}
}

// Hold keeps a slot, by its name, for the device that was there and is put back: a look
// that doesn't find it meanwhile may have freed the slot, or would. End it by Land or
// Release. One that somebody else has is left to that one.
func (t *Table) Hold(slot, owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.all[slot]
	if !ok || s.owner != "" && s.owner != owner {
		return
	}
	if s.owner == "" {
		t.setOwnerLocked(s, owner)
	}
	s.flight = true
}

// Release frees the slot of owner, if it has one.
func (t *Table) Release(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.owners[owner]; ok {
		s.flight = false
		t.setOwnerLocked(s, "")
	}
}

// Cancel frees s if it is still reserved for owner. Release does not do when a look
// found the owner's device in another slot.
func (t *Table) Cancel(s *Slot, owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.owner == owner && s.flight {
		s.flight = false
		t.setOwnerLocked(s, "")
	}
}

// Counts returns the slots in use, those that can be, and whether any is under ACPI.
func (t *Table) Counts() (used, total int, acpi bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		acpi = acpi || s.class.ACPI()
	}
	return t.used, max(t.used, min(len(t.all), MaxVNICs)), acpi
}

// Owners returns who has which slot.
func (t *Table) Owners() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	owners := map[string]string{}
	for name, s := range t.all {
		if s.owner != "" {
			owners[name] = s.owner
		}
	}
	return owners
}

// Mark returns the time for Merge. Take it before looking.
func (t *Table) Mark() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clock
}

// Merge brings in what a look that began at mark saw. What changed since, or is
// changing, stays.
func (t *Table) Merge(mark uint64, buses []Bus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	for _, b := range buses {
		for _, d := range b.devices() {
			if b.Wired[d] {
				continue
			}
			s := t.slotLocked(b, d)
			seen[s.String()] = true
			if !s.flight && s.stamp <= mark && s.owner != b.Taken[d] {
				t.setOwnerLocked(s, b.Taken[d])
				if n, ok := b.Vectors[d]; ok {
					s.vectors = n
				}
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

func (t *Table) slotLocked(b Bus, device int) *Slot {
	s := &Slot{Bus: b.Name, Device: device, class: b.Class}
	if old, ok := t.all[s.String()]; ok {
		return old
	}
	t.all[s.String()] = s
	if b.Taken[device] == "" {
		t.enqueueLocked(s)
	}
	return s
}

func (t *Table) setOwnerLocked(s *Slot, owner string) {
	t.clock++
	s.stamp = t.clock
	if t.owners[s.owner] == s {
		delete(t.owners, s.owner)
	}
	if s.owner != "" {
		t.used--
	}
	s.owner, s.vectors = owner, 1
	if owner == "" {
		t.enqueueLocked(s)
		return
	}
	t.used++
	t.owners[owner] = s
}

func (t *Table) enqueueLocked(s *Slot) {
	if !s.queued && !s.gone {
		s.queued = true
		t.free[s.class] = append(t.free[s.class], s)
	}
}
