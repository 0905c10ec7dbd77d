package result

import (
	"cmp"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/brfuse/brfuse/internal/stats"
)

// Values returns a series.
func (s *Set) Values(r Ref) []float64 {
	obs := s.index[r]
	values := make([]float64, len(obs))
	for i, o := range obs {
		values[i] = o.value
	}
	return values
}

// Summary sums up a series. Its N is 0 when there is none.
func (s *Set) Summary(r Ref) stats.Summary { return stats.Summarize(s.Values(r)) }

// Ratio is a ratio of two medians, over the rounds that both series have, with
// its 95 % confidence interval. N is the number of those rounds; 0: there is none.
type Ratio struct {
	stats.Ratio
	N int
}

// Ratio compares two series, paired by round: what slows down a round slows down
// both. A median of 0 has no ratio.
func (s *Set) Ratio(of, to Ref) Ratio {
	a, b := s.paired(of, to)
	if len(a) == 0 || stats.Summarize(b).Median == 0 {
		return Ratio{}
	}
	r := stats.RatioOfMedians(a, b)
	if math.IsInf(r.High, 0) || math.IsNaN(r.Low) || math.IsNaN(r.High) {
		return Ratio{}
	}
	return Ratio{r, len(a)}
}

// point returns the ratio without its interval, which takes long to find.
func (s *Set) point(of, to Ref) (ratio float64, ok bool) {
	a, b := s.paired(of, to)
	if below := stats.Summarize(b).Median; below != 0 {
		return stats.Summarize(a).Median / below, true
	}
	return 0, false
}

func (s *Set) paired(of, to Ref) (a, b []float64) {
	type key struct{ run, round int }
	below := make(map[key]float64, len(s.index[to]))
	for _, o := range s.index[to] {
		below[key{o.run, o.round}] = o.value
	}
	for _, o := range s.index[of] {
		if v, ok := below[key{o.run, o.round}]; ok {
			a, b = append(a, o.value), append(b, v)
		}
	}
	return a, b
}

// Latency merges the histograms of all rounds, so that a rare latency is one of
// all. It is nil when the samples have none. Its values are nanoseconds.
func (s *Set) Latency(rig, topology, workload string) *hdrhistogram.Histogram {
	var all *hdrhistogram.Histogram
	for _, m := range s.Samples {
		if m.Rig != rig || m.Topology != topology || m.Workload != workload || m.Latency == "" {
			continue
		}
		h, err := hdrhistogram.Decode([]byte(m.Latency))
		if err != nil {
			continue // Add has refused those
		}
		if all == nil {
			all = h
			continue
		}
		all.Merge(h)
	}
	return all
}

// Rounds returns how many rounds a workload was measured in: those of the series that
// has most.
func (s *Set) Rounds(rig, topology, workload string) int {
	most := 0
	for r, obs := range s.index {
		if r.Rig == rig && r.Topology == topology && r.Workload == workload {
			most = max(most, len(obs))
		}
	}
	return most
}

// Rigs returns the rigs that there are samples of.
func (s *Set) Rigs() []string {
	return s.distinct([]string{Host, Pair}, func(r Ref) string { return r.Rig })
}

// ladder is the order of topologies.
var ladder = []string{Native, Veth, Bridged, NAT, Fused, OverlayLinux, OverlayNested, OverlayFused}

// Topologies returns those of a rig that there are samples of a metric of; of any,
// if it is empty.
func (s *Set) Topologies(rig, metric string) []string {
	return s.distinct(ladder, func(r Ref) string {
		if r.Rig != rig || metric != "" && r.Metric != metric {
			return ""
		}
		return r.Topology
	})
}

// Workloads returns those of a rig that there are samples of a metric of; of any,
// if it is empty.
func (s *Set) Workloads(rig, metric string) []Workload {
	names := s.distinct(nil, func(r Ref) string {
		if r.Rig != rig || metric != "" && r.Metric != metric {
			return ""
		}
		return r.Workload
	})
	all := make([]Workload, len(names))
	for i, name := range names {
		all[i] = ParseWorkload(name)
	}
	slices.SortStableFunc(all, compareWorkloads)
	return all
}

// distinct returns the names that are not empty, each once: first those that are
// known, in their order, then the others as they came.
func (s *Set) distinct(known []string, name func(Ref) string) []string {
	var names []string
	for _, r := range s.order {
		if n := name(r); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	rank := func(n string) int {
		if i := slices.Index(known, n); i >= 0 {
			return i
		}
		return len(known)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return names
}
