package result

// Comparison is a ratio of two series, and what it is to be.
type Comparison struct {
	Name   string
	Of, To Ref
	// AtLeast and AtMost are its goals; 0 is none.
	AtLeast, AtMost float64
}

// Finding is what a comparison has found.
type Finding struct {
	Comparison
	Ratio Ratio
}

// Verdicts of findings.
const (
	Met        = "met"
	Missed     = "missed"
	Unmeasured = "not measured"
)

// Verdict tells whether the goals were met. It is empty where there are none.
func (f Finding) Verdict() string {
	switch {
	case f.Ratio.N == 0:
		return Unmeasured
	case f.AtLeast == 0 && f.AtMost == 0:
		return ""
	case f.Ratio.Value < f.AtLeast || f.AtMost > 0 && f.Ratio.Value > f.AtMost:
		return Missed
	}
	return Met
}

// Told is the verdict, and whether the interval reaches across a goal: another run may
// tell otherwise then.
func (f Finding) Told() string {
	v := f.Verdict()
	across := func(goal float64) bool { return goal > 0 && f.Ratio.Low < goal && goal < f.Ratio.High }
	if (v == Met || v == Missed) && f.Ratio.N >= Fewest && (across(f.AtLeast) || across(f.AtMost)) {
		v += ", not for sure"
	}
	return v
}

// Compare finds the ratios of comparisons.
func (s *Set) Compare(all []Comparison) []Finding {
	found := make([]Finding, len(all))
	for i, c := range all {
		found[i] = Finding{c, s.Ratio(c.Of, c.To)}
	}
	return found
}

// Goals compares what brfuse claims: each as it was set for one guest and its
// hypervisor, then the same ratios of the other direction and of two guests, which
// have no goals.
func (s *Set) Goals() []Finding { return s.Compare(goals()) }

// The workloads of the goals.
const (
	RoundTrip  = "tcp_rr/1024"
	Stream     = "tcp_stream/16384" // the pod sends
	StreamRx   = "tcp_stream_rx/16384"
	Datagrams  = "udp_stream/64" // the pod sends
	DatagramRx = "udp_stream_rx/64"
	Connects   = "tcp_crr/64"
)

// goal is a comparison of two topologies.
type goal struct {
	name             string
	workload, metric string
	of, to           string
	atLeast, atMost  float64
}

func (g goal) in(rig string) Comparison {
	return Comparison{
		Name: g.name, AtLeast: g.atLeast, AtMost: g.atMost,
		Of: Ref{rig, g.of, g.workload, g.metric}, To: Ref{rig, g.to, g.workload, g.metric},
	}
}

func goals() []Comparison {
	set := []goal{
		{"round trip of 1 KiB, p50: fused / native", RoundTrip, P50, Fused, Native, 0, 1.03},
		{"round trip of 1 KiB, p50: fused / nat", RoundTrip, P50, Fused, NAT, 0, 0.80},
		{"TCP stream, pod sends: fused / native", Stream, Throughput, Fused, Native, 0.97, 0},
		{"64 B UDP packets, pod sends: fused / native", Datagrams, Rate, Fused, Native, 0.97, 0},
		{"64 B UDP packets, pod sends: fused / nat", Datagrams, Rate, Fused, NAT, 1.5, 0},
		{"instructions, 64 B UDP packet: fused / nat", Datagrams, Instructions, Fused, NAT, 0, 0.75},
		{"instructions, round trip of 1 KiB: fused / nat", RoundTrip, Instructions, Fused, NAT, 0, 0.88},
		{"instructions, 64 B UDP packet: fused / native", Datagrams, Instructions, Fused, Native, 0, 1.02},
		{"instructions, round trip of 1 KiB: fused / native", RoundTrip, Instructions, Fused, Native, 0, 1.02},
	}
	others := []goal{
		{"TCP stream, pod sends: fused / nat", Stream, Throughput, Fused, NAT, 0, 0},
		{"TCP stream, pod receives: fused / native", StreamRx, Throughput, Fused, Native, 0, 0},
		{"TCP stream, pod receives: fused / nat", StreamRx, Throughput, Fused, NAT, 0, 0},
		{"64 B UDP packets, pod receives: fused / native", DatagramRx, Rate, Fused, Native, 0, 0},
		{"64 B UDP packets, pod receives: fused / nat", DatagramRx, Rate, Fused, NAT, 0, 0},
		{"instructions, 64 B UDP packet, pod receives: fused / native", DatagramRx, Instructions, Fused, Native, 0, 0},
		{"instructions, 64 B UDP packet, pod receives: fused / nat", DatagramRx, Instructions, Fused, NAT, 0, 0},
		{"instructions, KiB of a stream: fused / native", Stream, InstructionsKiB, Fused, Native, 0, 0},
		{"instructions, KiB of a stream: fused / nat", Stream, InstructionsKiB, Fused, NAT, 0, 0},
		{"instructions, connect and close: fused / native", Connects, Instructions, Fused, Native, 0, 0},
		{"instructions, connect and close: fused / nat", Connects, Instructions, Fused, NAT, 0, 0},
	}
	var all []Comparison
	for _, g := range append(set, others...) {
		all = append(all, g.in(Host))
	}
	for _, g := range append(set, others...) {
		c := g.in(Pair)
		c.AtLeast, c.AtMost = 0, 0
		all = append(all, c)
	}
	return all
}

// Missing tells whether a goal that was measured is missed.
func Missing(found []Finding) bool {
	for _, f := range found {
		if f.Verdict() == Missed {
			return true
		}
	}
	return false
}
