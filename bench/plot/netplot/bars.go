package netplot

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/brfuse/brfuse/bench/internal/result"
)

var pale = color.NRGBA{0xdd, 0xdd, 0xdd, 0xff}

// groupWidth is the share of a place that its bars take.
const groupWidth = 0.84

// figureAt is a bar's height and the ends of its whisker.
type figureAt struct{ value, low, high float64 }

// grouped draws a group of bars for each label, a bar for each topology. Bars
// without samples are left out. Values are written above them if there is room.
func grouped(p *plot.Plot, labels, topologies []string, at func(label int, topology string) (figureAt, bool), tell string) {
	var all boxes
	step := groupWidth / float64(len(topologies))
	for i := range labels {
		for n, t := range topologies {
			f, ok := at(i, t)
			if !ok {
				continue
			}
			left := float64(i) - groupWidth/2 + step*float64(n)
			b := box{x0: left + 0.06*step, x1: left + 0.94*step, y1: f.value, colour: colourOf(t), low: f.low, high: f.high}
			if tell != "" {
				b.label = fmt.Sprintf(tell, f.value)
			}
			all = append(all, b)
		}
	}
	nominalUnder(p, labels, all)
}

// nominalUnder adds bars above the grid.
func nominalUnder(p *plot.Plot, labels []string, all boxes) {
	_, _, _, top := all.DataRange()
	if !(top > 0) || math.IsInf(top, 0) {
		top = 1
	}
	nominal(p, labels)
	p.Add(all)
	p.X.Min, p.X.Max = -0.5, float64(len(labels))-0.5
	p.Y.Min, p.Y.Max = 0, top*1.12
}

// packets draws the rate of UDP streams by packet size.
func packets(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		topologies := set.Topologies(rig, result.Rate)
		f := figure{name: "udp-" + rig, title: "UDP packets received, by size, rig " + rig, legend: legendOf(topologies)}
		for _, d := range directions {
			workloads := ofKind(set, rig, "udp_stream"+d.suffix, result.Rate)
			if len(workloads) == 0 {
				continue
			}
			p := newPanel(d.title, "payload", "thousands a second")
			grouped(p, sizesOf(workloads), topologies, func(i int, t string) (figureAt, bool) {
				s := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: workloads[i].Name, Metric: result.Rate})
				return figureAt{s.Median / 1e3, s.Q1 / 1e3, s.Q3 / 1e3}, s.N > 0
			}, "")
			f.panels = append(f.panels, p)
		}
		if len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

func sizesOf(workloads []result.Workload) []string {
	labels := make([]string, len(workloads))
	for i, w := range workloads {
		labels[i] = size(w.Size)
	}
	return labels
}

// roundTrips draws the latency by message size: medians from 0 on, and, to another
// scale, whiskers from them up to the 90th and the 99th percentile.
func roundTrips(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		topologies := set.Topologies(rig, result.P50)
		f := figure{
			name: "latency-" + rig, columns: 2, legend: legendOf(topologies),
			title: "Round trips by message size, rig " + rig,
		}
		for _, kind := range []string{"tcp_rr", "udp_rr"} {
			workloads := ofKind(set, rig, kind, result.P50)
			if len(workloads) == 0 {
				continue
			}
			p := newPanel(kind+": median", "message size", "µs")
			grouped(p, sizesOf(workloads), topologies, func(i int, t string) (figureAt, bool) {
				s := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: workloads[i].Name, Metric: result.P50})
				return figureAt{s.Median / 1e3, s.Q1 / 1e3, s.Q3 / 1e3}, s.N > 0
			}, "")
			tail := newPanel(kind+": median, 90th (thick), 99th percentile (thin)", "message size", "µs, logarithmic")
			if clusters(tail, set, rig, workloads, topologies) {
				f.panels = append(f.panels, p, tail)
			}
		}
		if len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

// clusters tells whether there is anything to see.
func clusters(p *plot.Plot, set *result.Set, rig string, workloads []result.Workload, topologies []string) bool {
	var all latencies
	step := groupWidth / float64(len(topologies))
	for i, w := range workloads {
		for n, t := range topologies {
			r := result.Ref{Rig: rig, Topology: t, Workload: w.Name}
			var us [3]float64
			for k, metric := range []string{result.P50, result.P90, result.P99} {
				r.Metric = metric
				us[k] = max(us[max(k-1, 0)], set.Summary(r).Median/1e3) // it may have the median only
			}
			if us[0] > 0 {
				all = append(all, latency{float64(i) - groupWidth/2 + step*(float64(n)+0.5), us[0], us[1], us[2], colourOf(t)})
			}
		}
	}
	if len(all) == 0 {
		return false
	}
	p.Add(all)
	_, _, low, high := all.DataRange()
	p.NominalX(sizesOf(workloads)...)
	p.X.Min, p.X.Max = -0.5, float64(len(workloads))-0.5
	p.Y.Min, p.Y.Max = low/1.2, high*1.2
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, powers{}
	return true
}

// normalised draws nat and fused beside native, which is 1: the figure that says it
// all.
func normalised(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		f := figure{
			name: "normalised-" + rig, title: "Beside native, rig " + rig + ": medians, 95 % intervals of the ratios",
			columns: 1, legend: legendOf(headline),
		}
		for _, part := range []struct {
			title string
			kinds []string
		}{
			{"throughput of TCP streams and of UDP packets: higher is better", []string{"tcp_stream", "tcp_stream_rx", "udp_stream", "udp_stream_rx"}},
			{"latency, p50 of round trips: lower is better", []string{"tcp_rr", "udp_rr"}},
		} {
			if p := beside(set, rig, part.title, part.kinds, headline); p != nil {
				f.panels = append(f.panels, p)
			}
		}
		if len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

// headline are the three topologies of that figure.
var headline = []string{result.Native, result.NAT, result.Fused}

// beside returns a panel of ratios to native, or nil if there are none.
func beside(set *result.Set, rig, title string, kinds, topologies []string) *plot.Plot {
	var workloads []result.Workload
	var labels []string
	for _, kind := range kinds {
		for _, w := range ofKind(set, rig, kind, "") {
			if hasRatio(set, rig, w, topologies) {
				workloads, labels = append(workloads, w), append(labels, shortName(w))
			}
		}
	}
	if len(workloads) == 0 {
		return nil
	}
	p := newPanel(title, "", "ratio to native")
	grouped(p, labels, topologies, func(i int, t string) (figureAt, bool) { return ratio(set, rig, workloads[i], t) }, "%.2f")
	one := plotter.NewFunction(func(float64) float64 { return 1 })
	one.Color, one.Width = ink, 0.5
	p.Add(one)
	return p
}

func ratio(set *result.Set, rig string, w result.Workload, topology string) (figureAt, bool) {
	of := result.Ref{Rig: rig, Topology: topology, Workload: w.Name, Metric: w.Headline()}
	to := of
	to.Topology = result.Native
	if topology == result.Native {
		return figureAt{value: 1}, set.Summary(to).N > 0
	}
	r := set.Ratio(of, to)
	return figureAt{r.Value, r.Low, r.High}, r.N > 0
}

func hasRatio(set *result.Set, rig string, w result.Workload, topologies []string) bool {
	for _, t := range topologies {
		if _, ok := ratio(set, rig, w, t); ok && t != result.Native {
			return true
		}
	}
	return false
}

// shortName is a workload's name below its bars.
func shortName(w result.Workload) string {
	names := map[string]string{
		"tcp_stream": "TCP", "tcp_stream_rx": "TCP rx", "udp_stream": "UDP", "udp_stream_rx": "UDP rx", "tcp_rr": "TCP", "udp_rr": "UDP",
	}
	return names[w.Kind] + "\n" + size(w.Size)
}

// overlay draws the overlays beside native.
func overlay(set *result.Set) ([]figure, error) {
	topologies := []string{result.Native, result.OverlayLinux, result.OverlayNested, result.OverlayFused}
	f := figure{
		name: "overlay", title: "Overlays between two guests, beside native: medians, 95 % intervals of the ratios",
		legend: legendOf(topologies),
	}
	groups := 0 // in the fullest panel
	for _, part := range []struct {
		title string
		kinds []string
	}{
		{"throughput of one TCP flow", []string{"tcp_stream", "tcp_stream_rx"}},
		{"UDP packets a second", []string{"udp_stream", "udp_stream_rx"}},
		{"round trip, p50: lower is better", []string{"tcp_rr", "udp_rr"}},
	} {
		if p := beside(set, result.Pair, part.title, part.kinds, topologies); p != nil {
			groups = max(groups, int(p.X.Max-p.X.Min))
			f.panels = append(f.panels, p)
		}
	}
	if f.columns = 3; groups > 2 {
		f.columns = 1
	}
	if len(f.panels) == 0 {
		return nil, nil
	}
	return []figure{f}, nil
}
