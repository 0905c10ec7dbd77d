package netcost

// Since returns what was counted after an earlier snapshot. What wasn't there then,
// or has begun to count anew since, such as a device that was made again, counts
// from zero; what is no more there is left out.
func (s Snapshot) Since(earlier Snapshot) Cost {
	c, e := s.Counters, earlier.Counters
	cost := Cost{Elapsed: s.Taken.Sub(earlier.Taken), Counters: Counters{
		CPU:        c.CPU.since(e.CPU),
		Interrupts: countsSince(c.Interrupts, e.Interrupts), Softirqs: countsSince(c.Softirqs, e.Softirqs),
		ContextSwitches: less(c.ContextSwitches, e.ContextSwitches), Backlog: c.Backlog.since(e.Backlog),
	}}
	for i, cpu := range c.CPUs {
		var before CPU
		if i < len(e.CPUs) {
			before = e.CPUs[i]
		}
		cost.CPUs = append(cost.CPUs, cpu.since(before))
	}
	cost.Namespaces = each(c.Namespaces, e.Namespaces, func(p Protocol) string { return p.Namespace }, Protocol.since)
	cost.Devices = each(c.Devices, e.Devices, Device.key, Device.since)
	cost.Processes = each(c.Processes, e.Processes, func(p Process) int { return p.PID }, Process.since)
	return cost
}

// deviceKey tells devices apart. A name may be given to another device.
type deviceKey struct {
	namespace, name string
	index           int
}

func (d Device) key() deviceKey { return deviceKey{d.Namespace, d.Name, d.Index} }

// each returns the differences of those in later to those with the same key in earlier.
func each[T any, K comparable](later, earlier []T, key func(T) K, since func(T, T) T) []T {
	before := make(map[K]T, len(earlier))
	for _, e := range earlier {
		before[key(e)] = e
	}
	var ds []T
	for _, l := range later {
		ds = append(ds, since(l, before[key(l)]))
	}
	return ds
}

// countsSince returns the counts of 32 bits for each CPU that grew.
func countsSince(later, earlier map[string]uint64) map[string]uint64 {
	grown := map[string]uint64{}
	for name, n := range later {
		if d := less32(n, earlier[name]); d > 0 {
			grown[name] = d
		}
	}
	return grown
}

// less returns how much a counter grew; one that is smaller than before began anew.
func less(later, earlier uint64) uint64 {
	if later < earlier {
		return later
	}
	return later - earlier
}

// less32 returns how much a sum of counters of 32 bits grew, such as those of
// interrupts by CPU. Where one of them has passed its end, the sum is smaller by 1<<32
// and not by what it was, which tells that from one that began anew.
func less32(later, earlier uint64) uint64 {
	const end = 1 << 32
	if later < earlier && earlier-later > end/2 && earlier-later <= end {
		return later + end - earlier
	}
	return less(later, earlier)
}
