package netplot

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// glyphs and dashes set apart lines that lie upon each other.
var (
	glyphs = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}}
	dashed = map[string][]vg.Length{result.Fused: {5, 3}, result.OverlayFused: {5, 3}}
)

// throughput draws that of TCP streams by message size.
func throughput(set *result.Set) ([]figure, error) {
	var all []figure
	for _, rig := range set.Rigs() {
		f := figure{name: "throughput-" + rig, title: "TCP stream by message size, one flow, rig " + rig}
		f.legend = legendOf(set.Topologies(rig, result.Throughput))
		for _, d := range directions {
			workloads := ofKind(set, rig, "tcp_stream"+d.suffix, result.Throughput)
			if len(workloads) < 2 {
				continue
			}
			p := newPanel(d.title, "message size", "MB/s")
			if err := lines(p, set, rig, workloads, func(w result.Workload) string { return size(w.Size) }); err != nil {
				return nil, err
			}
			f.panels = append(f.panels, p)
		}
		if len(f.panels) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

// flows draws how the throughput of TCP streams grows with their number.
func flows(set *result.Set) ([]figure, error) {
	f := figure{name: "flows", title: "TCP streams of 16 KiB messages by number of flows"}
	for _, rig := range set.Rigs() {
		for _, d := range directions {
			base := result.ParseWorkload("tcp_stream" + d.suffix + "/16384")
			var workloads []result.Workload
			for _, w := range set.Workloads(rig, result.Throughput) {
				if w.Kind == base.Kind && w.Size == base.Size {
					workloads = append(workloads, w)
				}
			}
			if len(workloads) < 2 {
				continue
			}
			p := newPanel("rig "+rig+", "+d.title, "flows", "MB/s")
			if err := lines(p, set, rig, workloads, func(w result.Workload) string { return fmt.Sprint(w.Flows) }); err != nil {
				return nil, err
			}
			f.panels = append(f.panels, p)
			f.legend = union(f.legend, legendOf(set.Topologies(rig, result.Throughput)))
		}
	}
	if len(f.panels) == 0 {
		return nil, nil
	}
	return []figure{f}, nil
}

func union(a, b []entry) []entry {
	have := map[string]bool{}
	var all []entry
	for _, e := range append(a, b...) {
		if !have[e.label] {
			have[e.label] = true
			all = append(all, e)
		}
	}
	return all
}

// lines draws a line of medians for each topology, with quartiles.
func lines(p *plot.Plot, set *result.Set, rig string, workloads []result.Workload, label func(result.Workload) string) error {
	labels := make([]string, len(workloads))
	for i, w := range workloads {
		labels[i] = label(w)
	}
	for n, t := range set.Topologies(rig, result.Throughput) {
		var points band
		for i, w := range workloads {
			s := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: result.Throughput})
			if s.N > 0 {
				points.XYs = append(points.XYs, plotter.XY{X: float64(i), Y: s.Median / 1e6})
				points.YErrors = append(points.YErrors, struct{ Low, High float64 }{(s.Median - s.Q1) / 1e6, (s.Q3 - s.Median) / 1e6})
			}
		}
		if len(points.XYs) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points.XYs)
		if err != nil {
			return fmt.Errorf("draw %s of %s: %w", t, p.Title.Text, err)
		}
		spread, err := plotter.NewYErrorBars(points)
		if err != nil {
			return fmt.Errorf("draw %s of %s: %w", t, p.Title.Text, err)
		}
		line.Color, line.Width, line.Dashes = colourOf(t), 1.6, dashed[t]
		dots.Color, dots.Shape, dots.Radius = colourOf(t), glyphs[n%len(glyphs)], 3
		spread.Color, spread.CapWidth = colourOf(t), 5
		p.Add(spread, line, dots)
	}
	nominal(p, labels)
	return nil
}

// band is a line with its quartiles.
type band struct {
	plotter.XYs
	plotter.YErrors
}

// nominal labels the places 0, 1, … of the x axis, and has y begin at 0.
func nominal(p *plot.Plot, labels []string) {
	p.NominalX(labels...)
	p.X.Min, p.X.Max = -0.5, float64(len(labels))-0.5
	p.Y.Min = 0
	p.Y.Max = max(p.Y.Max, 1e-9) * 1.08
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = pale
	p.Add(grid)
}
