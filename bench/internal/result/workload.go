package result

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Workload is what the name of a workload says.
type Workload struct {
	Name  string // all of it
	Kind  string // "tcp_stream_rx", "redis"
	Size  int    // of a message in bytes; 0 if the name has none
	Flows int    // 1 if the name has none
	Rest  string // what is neither: "get" of "redis/get"
}

// ParseWorkload takes a name apart. Any name is one.
func ParseWorkload(name string) Workload {
	kind, rest, _ := strings.Cut(name, "/")
	w := Workload{Name: name, Kind: kind, Flows: 1}
	var others []string
	for part := range strings.SplitSeq(rest, "/") {
		flows, isFlows := strings.CutPrefix(part, "flows=")
		if n, err := strconv.Atoi(flows); err == nil && n > 0 && isFlows {
			w.Flows = n
		} else if err == nil && n > 0 && w.Size == 0 {
			w.Size = n
		} else if part != "" {
			others = append(others, part)
		}
	}
	w.Rest = strings.Join(others, "/")
	return w
}

// kinds are in the order of tables.
var kinds = []string{
	"tcp_rr", "sockperf", "udp_rr", "tcp_stream", "iperf3", "tcp_stream_rx", "udp_stream", "udp_stream_rx", "tcp_crr", "redis", "http",
}

func compareWorkloads(a, b Workload) int {
	rank := func(w Workload) int {
		if i := slices.Index(kinds, w.Kind); i >= 0 {
			return i
		}
		return len(kinds)
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Flows, b.Flows),
		cmp.Compare(a.Size, b.Size), cmp.Compare(a.Name, b.Name),
	)
}

// Headline returns the metric that a workload is about.
func (w Workload) Headline() string {
	switch w.Kind {
	case "tcp_rr", "udp_rr", "sockperf":
		return P50
	case "tcp_stream", "tcp_stream_rx":
		return Throughput
	case "iperf3":
		if strings.HasPrefix(w.Rest, "tcp") {
			return Throughput
		}
	}
	return Rate
}

// TimeOf returns the metric that says how long a message, or a KiB of a stream, takes.
func (w Workload) TimeOf() string {
	switch h := w.Headline(); h {
	case Throughput:
		return TimeKiB
	case Rate:
		return Time
	default:
		return h
	}
}

// GuestTimeOf is TimeOf of the guest's CPU.
func (w Workload) GuestTimeOf() string {
	if w.Headline() == Throughput {
		return GuestTimeKiB
	}
	return GuestTime
}

// InstructionsOf is TimeOf in instructions of the guest.
func (w Workload) InstructionsOf() string {
	if w.Headline() == Throughput {
		return InstructionsKiB
	}
	return Instructions
}
