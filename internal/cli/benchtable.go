package cli

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/stats"
)

// benchSample is a sample in the format of the files that the benchmarks under
// bench/ write.
type benchSample struct {
	Kind     string             `json:"kind"` // "sample"
	Rig      string             `json:"rig"`  // "pair"
	Topology string             `json:"topology"`
	Workload string             `json:"workload"`
	Round    int                `json:"round"`
	Metrics  map[string]float64 `json:"metrics"`
	Drops    map[string]uint64  `json:"drops,omitempty"`
	Latency  string             `json:"latency,omitempty"`
}

func fromBenchSample(m *brfusev1.BenchSample) benchSample {
	return benchSample{
		Kind: "sample", Rig: "pair", Topology: m.GetTopology(), Workload: m.GetWorkload(), Round: int(m.GetRound()),
		Metrics: m.GetMetrics(), Drops: m.GetDrops(), Latency: m.GetLatency(),
	}
}

// benchRatio compares the medians of a metric in two topologies.
type benchRatio struct {
	Workload string  `json:"workload"`
	Metric   string  `json:"metric"`
	Topology string  `json:"topology"`
	To       string  `json:"to"`
	Value    float64 `json:"value"`
	// Low and High are the bounds of the interval that it lies in by 95 %. Fewer than
	// three rounds tell none.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
}

// fewest are the rounds that an interval takes.
const fewest = 3

// benchOutcome is what a bench has found.
type benchOutcome struct {
	VM            string        `json:"vm"`
	Peer          string        `json:"peer"`
	Network       string        `json:"network,omitempty"`
	NativeAddress string        `json:"nativeAddress,omitempty"`
	Topologies    []string      `json:"topologies"`
	Workloads     []string      `json:"workloads"`
	Ratios        []benchRatio  `json:"ratios"`
	Samples       []benchSample `json:"samples"`
}

func newBenchOutcome(req *brfusev1.BenchRequest) *benchOutcome {
	return &benchOutcome{VM: req.GetVm(), Peer: req.GetPeer(), Topologies: req.GetTopologies(), Workloads: []string{}, Ratios: []benchRatio{}}
}

// add keeps a sample. Its workload has the name that the daemon gives it, which may be
// another than on the command line: "tcp_rr/64/flows=1" is "tcp_rr/64".
func (o *benchOutcome) add(s benchSample) {
	o.Samples = append(o.Samples, s)
	if !slices.Contains(o.Workloads, s.Workload) {
		o.Workloads = append(o.Workloads, s.Workload)
	}
}

// whole leaves out rounds that were not finished, and returns how many were.
func (o *benchOutcome) whole(workloads int) int {
	count := map[int]int{}
	for _, s := range o.Samples {
		count[s.Round]++
	}
	o.Samples = slices.DeleteFunc(o.Samples, func(s benchSample) bool { return count[s.Round] < workloads*len(o.Topologies) })
	maps.DeleteFunc(count, func(_, n int) bool { return n < workloads*len(o.Topologies) })
	return len(count)
}

// series returns a metric's values by round.
func (o *benchOutcome) series(topology, workload, metric string) (values []float64) {
	list := slices.Clone(o.Samples)
	slices.SortStableFunc(list, func(a, b benchSample) int { return a.Round - b.Round })
	for _, s := range list {
		if v, ok := s.Metrics[metric]; ok && s.Topology == topology && s.Workload == workload {
			values = append(values, v)
		}
	}
	return values
}

// base is the topology that others are compared to: native, if it is there.
func (o *benchOutcome) base() string {
	if slices.Contains(o.Topologies, "native") {
		return "native"
	}
	return o.Topologies[0]
}

// compare fills in the ratios of all metrics. Where a median is 0 there is none.
func (o *benchOutcome) compare() {
	base := o.base()
	for _, workload := range o.Workloads {
		for _, metric := range o.metrics(workload) {
			of := o.series(base, workload, metric)
			for _, topology := range o.Topologies {
				list := o.series(topology, workload, metric)
				if topology == base || len(list) == 0 || len(list) != len(of) {
					continue
				}
				r := stats.RatioOfMedians(list, of)
				if bad := r.Value + r.Low + r.High; math.IsNaN(bad) || math.IsInf(bad, 0) {
					continue
				}
				if len(of) < fewest {
					r.Low, r.High = 0, 0
				}
				o.Ratios = append(o.Ratios, benchRatio{workload, metric, topology, base, r.Value, r.Low, r.High})
			}
		}
	}
}

// metrics returns the names of a workload's metrics, sorted.
func (o *benchOutcome) metrics(workload string) (names []string) {
	for _, s := range o.Samples {
		if s.Workload != workload {
			continue
		}
		for name := range s.Metrics {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// shown are the metrics of a workload in the table: what it is about, and its cost.
func shown(workload string) []string {
	switch kind, _, _ := strings.Cut(workload, "/"); {
	case strings.HasPrefix(kind, "tcp_stream"):
		return []string{"B/s", "guest-ns/KiB"}
	case strings.HasPrefix(kind, "udp_stream"):
		return []string{"msg/s", "loss", "guest-ns/msg"}
	case strings.HasPrefix(kind, "tcp_crr"):
		return []string{"msg/s", "p50-ns", "guest-ns/msg"}
	}
	return []string{"p50-ns", "p99-ns", "guest-ns/msg"}
}

// table prints medians, and ratios to the base.
func (o *benchOutcome) table(w io.Writer) {
	base := o.base()
	fmt.Fprint(w, "WORKLOAD\tMEASURE\t", strings.ToUpper(base))
	for _, t := range o.Topologies {
		if t != base {
			fmt.Fprintf(w, "\t%s\t/ %s", strings.ToUpper(t), strings.ToUpper(base))
		}
	}
	fmt.Fprintln(w)
	for _, workload := range o.Workloads {
		for _, metric := range shown(workload) {
			o.row(w, workload, metric)
		}
	}
}

func (o *benchOutcome) row(w io.Writer, workload, metric string) {
	base := o.base()
	fmt.Fprintf(w, "%s\t%s\t%s", workload, measure(metric), quantity(metric, o.series(base, workload, metric)))
	for _, t := range o.Topologies {
		if t == base {
			continue
		}
		ratio := "-"
		for _, r := range o.Ratios {
			if r.Workload == workload && r.Metric == metric && r.Topology == t {
				ratio = fmt.Sprintf("%.2f", r.Value)
				if r.High > 0 {
					ratio += fmt.Sprintf(" (%.2f-%.2f)", r.Low, r.High)
				}
			}
		}
		fmt.Fprintf(w, "\t%s\t%s", quantity(metric, o.series(t, workload, metric)), ratio)
	}
	fmt.Fprintln(w)
}

// measure is what people call a metric.
func measure(metric string) string {
	switch metric {
	case "B/s":
		return "throughput"
	case "msg/s":
		return "rate"
	case "p50-ns", "p99-ns":
		return "latency " + strings.TrimSuffix(metric, "-ns")
	case "guest-ns/KiB":
		return "guests' CPU per KiB"
	case "guest-ns/msg":
		return "guests' CPU per message"
	}
	return metric
}

// quantity shows the median of a metric with its unit.
func quantity(metric string, values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	v := stats.Summarize(values).Median
	switch {
	case metric == "B/s":
		return fmt.Sprintf("%.4g Mbit/s", v*8/1e6)
	case metric == "msg/s":
		return fmt.Sprintf("%.0f /s", v)
	case metric == "loss":
		return fmt.Sprintf("%.2f %%", v*100)
	case strings.Contains(metric, "-ns"):
		return fmt.Sprintf("%.4g µs", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
