package slots

// Interrupt vectors of an x86 guest, measured with Linux 6.1: devices get 202 of
// each CPU. When they run out, a virtio NIC's driver gives up with ENOSPC, even
// where the old shared lines would do: those need vectors as well.
const (
	vectorsPerCPU    = 200
	vectorsOfOthers  = 32 // timer, keyboard, shared lines, disks, channels
	vectorsOtherCPU  = 4  // and what those take for each CPU
	vectorsPerPort   = 1  // of a root port, for errors and power management
	sharedVectors    = 2  // one for the configuration, one for all queues
	vectorsPerQueues = 2  // one to receive, one to send
)

// Budget returns how many vectors a guest has for vNICs, whose slots are on so
// many buses.
func Budget(cpus, buses int) int {
	return max(0, cpus*(vectorsPerCPU-vectorsOtherCPU)-vectorsOfOthers-buses*vectorsPerPort)
}

// Full returns the vectors that a vNIC wants: two for each queue pair, and one
// that tells of its configuration.
func Full(queues int) int { return vectorsPerQueues*queues + 1 }

// Vectors returns how many vectors the next vNIC gets when the others have used
// some of the budget and so many slots remain, its own among them: all that it
// wants, if each of those to come can have two; else two, as long as there are
// any; else none: then it shares one of the guest's few interrupt lines.
func Vectors(queues, budget, used, free int) int {
	full := Full(queues)
	switch {
	case used+full+sharedVectors*(free-1) <= budget:
		return full
	case used+sharedVectors <= budget:
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
	used, free := 0, 1
	buses := map[string]bool{}
	for _, o := range t.all {
		buses[o.Bus] = true
		switch {
		case o == s:
		case o.owner == "":
			free++
		default:
			used += o.vectors
		}
	}
	s.vectors = Vectors(queues, Budget(cpus, len(buses)), used, free)
	return s.vectors
}
