package main

import (
	"fmt"
	"strconv"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// figures writes a table for each rig and kind of workload: a row for each size and
// number of flows, a column for each topology.
func figures(p *page, set *result.Set) {
	p.heading("Figures, with ratios to native")
	for _, rig := range set.Rigs() {
		topologies := set.Topologies(rig, "")
		for _, kind := range byKind(set.Workloads(rig, "")) {
			metric := kind[0].Headline()
			rows := figureRows(set, rig, kind, topologies, metric)
			if len(rows) == 0 {
				continue
			}
			unit, _ := result.Unit(metric)
			p.f("%s, rig %s, %s:\n\n", kind[0].Kind, rig, unit)
			p.table(append([]string{"workload"}, topologies...), rows)
		}
	}
}

// byKind parts workloads where their kind or what is measured of them changes.
func byKind(all []result.Workload) [][]result.Workload {
	var parts [][]result.Workload
	for i, w := range all {
		if i == 0 || w.Kind != all[i-1].Kind || w.Headline() != all[i-1].Headline() {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], w)
	}
	return parts
}

func figureRows(set *result.Set, rig string, workloads []result.Workload, topologies []string, metric string) [][]string {
	var rows [][]string
	for _, w := range workloads {
		row, found := []string{w.Name}, false
		for _, t := range topologies {
			of := result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: metric}
			cell := median(set, of)
			found = found || cell != "-"
			if ratio := set.Ratio(of, native(of)); t != result.Native && ratio.N > 0 {
				cell += fmt.Sprintf(", %s (%s)", ratio, ratio.Interval())
			}
			row = append(row, cell)
		}
		if found {
			rows = append(rows, row)
		}
	}
	return rows
}

// native is the same series of the native topology.
func native(r result.Ref) result.Ref {
	r.Topology = result.Native
	return r
}

// percentiles of the tables of latency.
var percentiles = []float64{50, 90, 99, 99.9}

// latencies writes the percentiles over all rounds, of those workloads that have
// histograms.
func latencies(p *page, set *result.Set) {
	var rows [][]string
	for _, rig := range set.Rigs() {
		for _, w := range set.Workloads(rig, "") {
			for _, t := range set.Topologies(rig, "") {
				h := set.Latency(rig, t, w.Name)
				if h == nil {
					continue
				}
				row := []string{w.Name, rig, t}
				for _, q := range percentiles {
					row = append(row, result.Format(result.P50, float64(h.ValueAtPercentile(q))))
				}
				rows = append(rows, append(row, result.Format(result.P50, float64(h.Max())), strconv.FormatInt(h.TotalCount(), 10)))
			}
		}
	}
	if len(rows) == 0 {
		return
	}
	p.heading("Latency over all rounds, µs")
	p.table([]string{"workload", "rig", "topology", "p50", "p90", "p99", "p99.9", "max", "n"}, rows)
}

// layers writes what each layer of a nested network adds.
func layers(p *page, set *result.Set) {
	ladders := set.Ablation()
	if len(ladders) == 0 {
		return
	}
	p.heading("What each layer costs")
	p.f(`From one row to the next a layer is added, from a process in the VM to a pod behind NAT: what a message (of a stream: a KiB) takes more, as a share
of native, and as a ratio to the row above. The last row is a fused pod, beside native.

`)
	for _, l := range ladders {
		unit, _ := result.Unit(l.Metric)
		p.f("%s, rig %s, %s:\n\n", l.Workload.Name, l.Rig, measure(l)+unit)
		sum := l.Base
		rows := [][]string{{"native", result.Format(l.Metric, l.Base), "", "", ""}}
		for _, layer := range l.Layers {
			sum += layer.Added
			rows = append(rows, []string{
				"+ " + layer.Name, result.Format(l.Metric, sum), result.Format(l.Metric, layer.Added),
				result.Percent(l.Share(layer)), layer.Step.String() + " (" + layer.Step.Interval() + ")",
			})
		}
		if l.Fused.N > 0 {
			fused := result.Ref{Rig: l.Rig, Topology: result.Fused, Workload: l.Workload.Name, Metric: l.Metric}
			rows = append(rows, []string{
				"fused, to native", median(set, fused), result.Format(l.Metric, set.Summary(fused).Median-l.Base),
				result.Percent(l.Fused.Value - 1), l.Fused.String() + " (" + l.Fused.Interval() + ")",
			})
		}
		p.table([]string{"", "median", "added", "of native", "ratio"}, rows)
	}
}

// measure says what a ladder is of.
func measure(l result.Ladder) string {
	switch l.Metric {
	case l.Workload.GuestTimeOf():
		return "CPU of the guest, "
	case l.Workload.InstructionsOf():
		return "instructions of the guest, "
	}
	return "time, "
}
