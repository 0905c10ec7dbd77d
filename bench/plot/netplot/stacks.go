package netplot

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// Sizes of panels of lying bars.
const (
	barHeight = vg.Length(20)
	barsRest  = vg.Length(62) // title, axis and its label
)

// segment is a part of a lying bar.
type segment struct {
	value  float64
	colour color.Color
}

// stack is a lying bar.
type stack struct {
	label    string
	segments []segment
}

// stacked draws bars one below the other, with their sums.
func stacked(title, unit string, bars []stack) *plot.Plot {
	p := newPanel(title, unit, "")
	var all boxes
	labels := make([]string, len(bars))
	top := 0.0
	for i, bar := range bars {
		at := len(bars) - 1 - i // from the top
		labels[at] = bar.label
		sum := 0.0
		for k, s := range bar.segments {
			b := box{x0: sum, x1: sum + s.value, y0: float64(at) - 0.36, y1: float64(at) + 0.36, colour: s.colour, lying: true}
			sum += s.value
			if k == len(bar.segments)-1 {
				b.label = result.Significant(sum)
			}
			all = append(all, b)
		}
		top = max(top, sum)
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Width, grid.Vertical.Color = 0, pale
	p.Add(grid, all)
	p.NominalY(labels...)
	p.X.Min, p.X.Max = 0, max(top, 1e-9)*1.15
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	return p
}

// stackHeight is that of a figure's panels, which have so many bars at most.
func stackHeight(most int) vg.Length { return barsRest + barHeight*vg.Length(most) }

// part of the CPU's time.
type part struct {
	label, metric string
	colour        color.Color
}

var cpuParts = []part{
	{"user", result.GuestUser, color.NRGBA{0x9b, 0xb8, 0x6a, 0xff}},
	{"system", result.GuestSystem, color.NRGBA{0x3f, 0x7d, 0xb5, 0xff}},
	{"softirq", result.GuestSoftirq, color.NRGBA{0xc8, 0x4b, 0x3c, 0xff}},
	{"irq", result.GuestIRQ, color.NRGBA{0xe3, 0xb2, 0x3c, 0xff}},
}

// cpu draws the guest's CPU time for a message, or a KiB of a stream, by what it was
// spent in.
func cpu(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		f := figure{name: "cpu-" + rig, title: "CPU time of the guest by kind, rig " + rig}
		for _, p := range cpuParts {
			f.legend = append(f.legend, entry{p.label, p.colour})
		}
		most := 0
		for _, name := range result.Ablated {
			w := result.ParseWorkload(name)
			bars := cpuBars(set, rig, w)
			if len(bars) > 0 {
				f.panels = append(f.panels, stacked(name, perMessage(w, "ns of CPU"), bars))
				most = max(most, len(bars))
			}
		}
		if f.height = stackHeight(most); len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

func perMessage(w result.Workload, what string) string {
	if w.Headline() == result.Throughput {
		return what + " for a KiB"
	}
	return what + " for a message"
}

func cpuBars(set *result.Set, rig string, w result.Workload) []stack {
	per := result.Rate
	scale := 1e9
	if w.Headline() == result.Throughput {
		per, scale = result.Throughput, 1e9*1024
	}
	var bars []stack
	for _, t := range set.Topologies(rig, result.GuestSystem) {
		done := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: per}).Median
		bar := stack{label: t}
		for _, part := range cpuParts {
			s := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: part.metric})
			if s.N > 0 && done > 0 {
				bar.segments = append(bar.segments, segment{s.Median / done * scale, part.colour})
			}
		}
		if len(bar.segments) > 0 {
			bars = append(bars, bar)
		}
	}
	return bars
}

var (
	irqColour   = color.NRGBA{0x55, 0x55, 0x55, 0xff}
	rxColour    = color.NRGBA{0xc8, 0x4b, 0x3c, 0xff}
	txColour    = color.NRGBA{0xe3, 0xb2, 0x3c, 0xff}
	otherColour = color.NRGBA{0x9c, 0xb3, 0xc9, 0xff}
)

// interrupts draws, for each topology, a bar of interrupts and one of softirqs by
// kind.
func interrupts(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		f := figure{name: "interrupts-" + rig, title: "Interrupts and softirqs of the guest, rig " + rig, legend: []entry{
			{"interrupts", irqColour}, {"softirqs: NET_RX", rxColour}, {"NET_TX", txColour}, {"other softirqs", otherColour},
		}}
		most := 0
		for _, name := range []string{result.RoundTrip, result.Stream, result.StreamRx, result.Datagrams, result.DatagramRx} {
			if bars := interruptBars(set, rig, name); len(bars) > 0 {
				f.panels = append(f.panels, stacked(name, "thousands a second", bars))
				most = max(most, len(bars))
			}
		}
		if f.height = stackHeight(most); len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

func interruptBars(set *result.Set, rig, workload string) []stack {
	var bars []stack
	for _, t := range set.Topologies(rig, result.Interrupts) {
		at := func(metric string) float64 {
			return set.Summary(result.Ref{Rig: rig, Topology: t, Workload: workload, Metric: metric}).Median / 1e3
		}
		irq, soft, rx, tx := at(result.Interrupts), at(result.Softirqs), at(result.NetRx), at(result.NetTx)
		if irq == 0 && soft == 0 {
			continue
		}
		bars = append(
			bars,
			stack{t, []segment{{irq, irqColour}}},
			stack{"", []segment{{rx, rxColour}, {tx, txColour}, {max(0, soft-rx-tx), otherColour}}},
		)
	}
	return bars
}

// instructions draws the guest's instructions for a message: what each layer adds,
// from native up to nat, and a fused pod.
func instructions(set *result.Set) ([]figure, error) {
	f := figure{name: "instructions", title: "Instructions of the guest, layer by layer"}
	f.legend = []entry{{"process in the VM", colourOf(result.Native)}}
	most := 0
	for _, l := range set.Ablation() {
		if l.Metric != l.Workload.InstructionsOf() {
			continue
		}
		bars := []stack{{result.Native, []segment{{l.Base, colourOf(result.Native)}}}}
		below := bars[0].segments
		for _, layer := range l.Layers {
			f.legend = union(f.legend, []entry{{"+ " + layer.Name, colourOf(layer.Topology)}})
			below = append(slices.Clip(below), segment{max(0, layer.Added), colourOf(layer.Topology)})
			bars = append(bars, stack{layer.Topology, below})
		}
		fused := set.Summary(result.Ref{Rig: l.Rig, Topology: result.Fused, Workload: l.Workload.Name, Metric: l.Metric})
		if fused.N > 0 {
			bars = append(bars, stack{result.Fused, []segment{{fused.Median, colourOf(result.Fused)}}})
		}
		title := fmt.Sprintf("%s, rig %s", l.Workload.Name, l.Rig)
		f.panels = append(f.panels, stacked(title, perMessage(l.Workload, "instructions"), bars))
		most = max(most, len(bars))
	}
	if len(f.panels) == 0 {
		return nil, nil
	}
	f.legend = append(f.legend, entry{"fused pod", colourOf(result.Fused)})
	f.height = stackHeight(most)
	return []figure{f}, nil
}
