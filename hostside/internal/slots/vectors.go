package slots

// Interrupt vectors of an x86 guest, measured with Linux 6.1: devices get 202 of
// each CPU. When they run out, a virtio NIC's driver gives up with ENOSPC, even
// where the old shared lines would do: those need vectors as well.
const (
	vectorsPerCPU   = 200
	vectorsOfOthers = 32 // timer, keyboard, shared lines, disks, channels
	vectorsOtherCPU = 4  // and what those take for each CPU
	vectorsPerBus   = 1  // of a root port, for errors and power management
	sharedVectors   = 2  // one for the configuration, one for all queues
)

// Sections of QEMU's memory map, measured with QEMU 7.2. There is room for 4096
// in an address space, and QEMU aborts when a device goes beyond.
const (
	sectionsOfAll    = 4096
	sectionsOfOthers = 250 // 80 to 90 of a small machine; the rest for two dozen virtio devices
	sectionsPlain    = 4   // of a vNIC
	sectionsMSIX     = 3   // and more when it has vectors
)

// MaxVNICs is how many hotplugged devices of vNICs' size QEMU has memory
// sections for, when none has vectors. More slots than that are of no use.
const MaxVNICs = (sectionsOfAll - sectionsOfOthers) / sectionsPlain

// Room is what is left of a machine's bounds.
type Room struct {
	Vectors  int // of the guest
	Sections int // of QEMU's memory map
}

// Bounds returns the room of a machine without vNICs that has so many CPUs, and
// so many buses with slots.
func Bounds(cpus, buses int) Room {
	return Room{
		Vectors:  max(0, cpus*(vectorsPerCPU-vectorsOtherCPU)-vectorsOfOthers-buses*vectorsPerBus),
		Sections: sectionsOfAll - sectionsOfOthers,
	}
}

// Take returns the room that a device with so many vectors leaves.
func (r Room) Take(vectors int) Room {
	r.Vectors -= vectors
	r.Sections -= sectionsPlain
	if vectors != 0 {
		r.Sections -= sectionsMSIX
	}
	return r
}

// Full returns the vectors that a vNIC wants: one to receive and one to send for
// each queue pair, and one that tells of its configuration.
func Full(queues int) int { return 2*queues + 1 }

// Choose returns how many vectors a vNIC gets when so many more are to have
// room: all that it wants, if each of the others can have two; else two, as long
// as there are any; else none: then it shares one of the guest's few interrupt
// lines. A vNIC without vectors takes less of QEMU's memory map, and none gets so
// much of it that the others could not even have that.
func (r Room) Choose(queues, others int) int {
	if r.Take(sharedVectors).Sections < others*sectionsPlain {
		return 0
	}
	switch full := Full(queues); {
	case full+sharedVectors*others <= r.Vectors:
		return full
	case sharedVectors <= r.Vectors:
		return sharedVectors
	}
	return 0
}

// Vectors chooses the vectors of the device that is to be plugged into s, which
// was reserved, in a guest with so many CPUs, and keeps account of them until
// the slot is free again.
func (t *Table) Vectors(s *Slot, queues, cpus int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	buses := map[string]bool{}
	for _, o := range t.all {
		buses[o.Bus] = true
	}
	room, used := Bounds(cpus, len(buses)), 0
	for _, o := range t.all {
		if o != s && o.owner != "" {
			room = room.Take(o.vectors)
			used++
		}
	}
	s.vectors = room.Choose(queues, min(len(t.all), MaxVNICs)-used-1)
	return s.vectors
}
