package main

import (
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// Sources of published figures. docs/benchmarks.md has their titles and authors.
const (
	icpp     = "ICPP'19"
	hotCloud = "HotCloud'19, slides"
)

// claim is a published figure.
type claim struct {
	source, says string
	ratio        string // what follows for the ratio that we compare
	compare      string // what that is
	parts        []part
}

// part is one of our figures beside it: a ratio, or the median of a series if it
// isn't compared with anything.
type part struct {
	label  string
	of, to result.Ref
}

// published returns published.md: each published figure with ours.
func published(set *result.Set) string {
	var p page
	var rows [][]string
	for _, c := range claims(set) {
		var cells []string
		for _, part := range c.parts {
			if text := part.tell(set); text != "" {
				cells = append(cells, text)
			}
		}
		if len(cells) == 0 {
			cells = []string{result.Unmeasured}
		}
		rows = append(rows, []string{c.source, c.says, c.ratio, c.compare, strings.Join(cells, "<br>")})
	}
	p.text([]string{"source", "published", "as a ratio", "what we compare", "ours, 95 % interval"}, rows)
	return p.String()
}

func (p part) tell(set *result.Set) string {
	if p.to == (result.Ref{}) {
		s := set.Summary(p.of)
		if s.N == 0 {
			return ""
		}
		unit, _ := result.Unit(p.of.Metric)
		return fmt.Sprintf("%s: %s %s", p.label, result.Format(p.of.Metric, s.Median), unit)
	}
	r := set.Ratio(p.of, p.to)
	if r.N == 0 {
		return ""
	}
	text := fmt.Sprintf("%s: **%.2f**", p.label, r.Value)
	if r.N >= result.Fewest {
		text += fmt.Sprintf(" (%.2f to %.2f)", r.Low, r.High)
	}
	return text
}

func claims(set *result.Set) []claim { return append(nestedClaims(set), overlayClaims(set)...) }

func nestedClaims(set *result.Set) []claim {
	streams := sizes(set, result.Host, []string{"tcp_stream_rx", "tcp_stream"}, result.Throughput)
	trips := sizes(set, result.Host, []string{"tcp_rr"}, result.P50)
	return []claim{
		{
			icpp, "nested networking: about 68 % less throughput than a single layer", "0.32", "TCP stream, nat / native, by message size",
			streams(result.NAT, result.Native),
		},
		{
			icpp, "nested networking: about 31 % more latency", "1.31", "TCP round trip, p50, nat / native, by message size",
			trips(result.NAT, result.Native),
		},
		{
			icpp, "BrFusion: the performance of a single layer", "1", "TCP stream, fused / native, by message size",
			streams(result.Fused, result.Native),
		},
		{
			icpp, "the same", "1", "TCP round trip, p50, fused / native, by message size",
			trips(result.Fused, result.Native),
		},
	}
}

func overlayClaims(set *result.Set) []claim {
	oneFlow := func(of, to, metric string) []part {
		return between(result.Pair, of, to, metric, result.Stream, result.StreamRx)
	}
	return []claim{
		{
			hotCloud, "one TCP flow on a Docker overlay: 72 % less throughput than native", "0.28",
			"TCP stream of one flow between two guests, overlay-nested / native",
			oneFlow(result.OverlayNested, result.Native, result.Throughput),
		},
		{
			"-", "the Linux overlay, without Docker's bridge and veth", "-",
			"the same, overlay-linux / native", oneFlow(result.OverlayLinux, result.Native, result.Throughput),
		},
		{
			"-", "brfuse's overlay, on the hosts", "-", "the same, overlay-fused / native and / overlay-nested",
			append(oneFlow(result.OverlayFused, result.Native, result.Throughput), oneFlow(result.OverlayFused, result.OverlayNested, result.Throughput)...),
		},
		{
			hotCloud, "an overlay's flow saturates one core", "1 CPU", "TCP stream of one flow, busy CPUs of both guests together", busy(),
		},
		{
			hotCloud, "several flows scale slowly", "below the number of flows", "TCP streams, several flows / one", scaling(set),
		},
		{
			hotCloud, "about 2.5 times the CPU at equal throughput", "2.5",
			"CPU of both guests for a KiB of a TCP stream, overlay-nested / native",
			oneFlow(result.OverlayNested, result.Native, result.GuestTimeKiB),
		},
		{
			hotCloud, "3 times as many softirqs as interrupts", "3", "softirqs / interrupts of both guests, one TCP flow",
			within(result.Softirqs, result.Interrupts, result.Stream, result.Stream),
		},
		{
			hotCloud, "UDP raises 10 times the interrupts of TCP", "10", "interrupts a second, UDP stream of 64 B / TCP stream",
			within(result.Interrupts, result.Interrupts, result.Datagrams, result.Stream),
		},
	}
}

// sizes returns a function that compares two topologies by each workload of some
// kinds, of one flow.
func sizes(set *result.Set, rig string, kinds []string, metric string) func(of, to string) []part {
	return func(of, to string) []part {
		var names []string
		for _, kind := range kinds {
			for _, w := range set.Workloads(rig, metric) {
				if w.Kind == kind && w.Flows == 1 && w.Size > 0 {
					names = append(names, w.Name)
				}
			}
		}
		return between(rig, of, to, metric, names...)
	}
}

func between(rig, of, to, metric string, workloads ...string) []part {
	var all []part
	for _, w := range workloads {
		all = append(all, part{w + ", " + of + " / " + to, result.Ref{Rig: rig, Topology: of, Workload: w, Metric: metric}, result.Ref{Rig: rig, Topology: to, Workload: w, Metric: metric}})
	}
	return all
}

// compared are the topologies that the slides compare, and ours.
var compared = []string{result.Native, result.OverlayLinux, result.OverlayNested, result.OverlayFused}

func busy() []part {
	var all []part
	for _, t := range compared {
		all = append(all, part{t, result.Ref{Rig: result.Pair, Topology: t, Workload: result.Stream, Metric: result.GuestCPU}, result.Ref{}})
	}
	return all
}

func within(metric, toMetric, workload, toWorkload string) []part {
	var all []part
	for _, t := range compared {
		all = append(all, part{
			t,
			result.Ref{Rig: result.Pair, Topology: t, Workload: workload, Metric: metric},
			result.Ref{Rig: result.Pair, Topology: t, Workload: toWorkload, Metric: toMetric},
		})
	}
	return all
}

func scaling(set *result.Set) []part {
	var all []part
	for _, t := range compared {
		for _, w := range set.Workloads(result.Pair, result.Throughput) {
			if w.Flows == 1 || !strings.HasPrefix(w.Name, result.Stream+"/") {
				continue
			}
			all = append(all, part{
				fmt.Sprintf("%s, %d flows", t, w.Flows),
				result.Ref{Rig: result.Pair, Topology: t, Workload: w.Name, Metric: result.Throughput},
				result.Ref{Rig: result.Pair, Topology: t, Workload: result.Stream, Metric: result.Throughput},
			})
		}
	}
	return all
}
