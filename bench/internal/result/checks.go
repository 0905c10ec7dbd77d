package result

// agree is how far two ways to measure the same may be apart.
const agree = 0.10

// sampled is how far the guest's account of its CPU may be off: its kernel takes for
// busy the time in which the vCPU waits for QEMU's other threads. So what it tells is to
// be between what the vCPU threads had and what all of QEMU had, where the guest is
// busy all the time. In round trips it isn't: what it costs a vCPU's thread to go to
// sleep and to wake up is nothing that the guest knows of.
const sampled = 0.15

// Checks compares what was measured in two ways in the same rounds, for each rig
// and topology that has both: netload with iperf3, and the guest's account of its
// CPU with that of its hypervisor.
func (s *Set) Checks() []Finding {
	var all []Comparison
	for _, rig := range s.Rigs() {
		for _, topology := range s.Topologies(rig, "") {
			for _, c := range checks(rig, topology) {
				if len(s.index[c.Of]) > 0 && len(s.index[c.To]) > 0 {
					all = append(all, c)
				}
			}
		}
	}
	return s.Compare(all)
}

func checks(rig, topology string) []Comparison {
	at := func(workload, metric string) Ref { return Ref{rig, topology, workload, metric} }
	in := topology + ": "
	all := []Comparison{
		{in + "TCP stream, netload / iperf3", at(Stream, Throughput), at("iperf3/tcp", Throughput), 1 - agree, 1 + agree},
		{in + "64 B UDP packets, netload / iperf3", at(Datagrams, Rate), at("iperf3/udp64", Rate), 0, 0},
		{in + "round trip of 1 KiB, netload / sockperf", at(RoundTrip, P50), at("sockperf/1024", P50), 0, 0},
	}
	for _, w := range []string{Stream, Datagrams} {
		all = append(
			all,
			Comparison{in + w + ", busy CPU of guest / of vCPU threads", at(w, GuestCPU), at(w, VCPUs), 1 - sampled, 0},
			Comparison{in + w + ", busy CPU of guest / of all of QEMU", at(w, GuestCPU), at(w, QEMUCPU), 0, 1 + sampled},
		)
	}
	return all
}
