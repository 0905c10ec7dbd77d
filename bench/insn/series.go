package main

import (
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/internal/stats"
)

// Metrics beside those of package result.
const (
	perSecond = "insn/s" // of a guest that does nothing
	total     = "insn"   // of a whole run
	elapsed   = "s"      // how long it took
)

// unit returns the metric that a workload is judged by.
func unit(workload string) string {
	if workload == idle {
		return perSecond
	}
	return result.ParseWorkload(workload).InstructionsOf()
}

// key names what is measured again and again.
type key struct{ rig, topology, workload string }

// summary sums up the figures that a workload is judged by.
func summary(set *result.Set, k key) stats.Summary {
	return set.Summary(result.Ref{Rig: k.rig, Topology: k.topology, Workload: k.workload, Metric: unit(k.workload)})
}

// spread returns the interquartile range as a fraction of the median. More
// rounds make it more certain and no larger, as they would the full range: some
// timer's work in the wrong place doesn't spoil a series for good.
func spread(set *result.Set, k key) float64 {
	s := summary(set, k)
	if s.Median == 0 {
		return 0
	}
	return (s.Q3 - s.Q1) / s.Median
}

// wide returns what of the plan has a spread above its limit. An idle guest's is
// not asked for.
func (p plan) wide(set *result.Set) []key {
	var all []key
	for _, t := range p.topologies {
		for _, w := range p.workloads {
			if k := (key{p.rig, t, w}); w != idle && spread(set, k) > p.limit(w) {
				all = append(all, k)
			}
		}
	}
	return all
}

// idleShare returns the largest part of a sample's instructions that an idle
// guest would have executed as well.
func (p plan) idleShare(set *result.Set) float64 {
	var most float64
	for _, s := range set.Samples {
		if n := s.Metrics[total]; s.Rig == p.rig && s.Workload != idle && n > 0 {
			rate := summary(set, key{s.Rig, s.Topology, idle}).Median
			most = max(most, rate*s.Metrics[elapsed]/n)
		}
	}
	return most
}
