package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"

	"github.com/brfuse/brfuse/bench/plot/internal/svg"
	"github.com/brfuse/brfuse/internal/stats"
)

// Sizes within a panel.
const (
	barWidth  = 11 * point
	quartiles = 6 * point
	gap       = 20 * point // from the labels to the bars: fonts differ in width
	aside     = 6 * point  // from a bar to its figure
	room      = 1.15       // on the right, for the longest bar's figure
)

// panel draws a group: a bar up to the median of each series, its quartiles as a
// line across the bar's end, and the figure.
func panel(g group, series map[string][]float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = g.title
	p.X.Label.Text = "milliseconds"
	p.X.Min, p.Y.Min = 0, -0.6
	p.Y.Max = float64(len(g.bars)) - 0.4
	labels := make([]string, len(g.bars))
	for i, b := range g.bars {
		at := len(g.bars) - 1 - i // from the top
		labels[at] = b.label
		s := stats.Summarize(series[b.series])
		if err := addBar(p, b, s, float64(at)); err != nil {
			return nil, fmt.Errorf("%s: %w", b.series, err)
		}
		p.X.Max = max(p.X.Max, s.Q3*room)
	}
	p.NominalY(labels...)
	p.Y.Padding = gap
	svg.SansPlot(p)
	return p, nil
}

// quartile is an error bar.
type quartile struct {
	plotter.XYs
	plotter.XErrors
}

func addBar(p *plot.Plot, b bar, s stats.Summary, at float64) error {
	bars, err := plotter.NewBarChart(plotter.Values{s.Median}, barWidth)
	if err != nil {
		return err
	}
	bars.Horizontal, bars.XMin, bars.Color = true, at, b.kind.colour()
	bars.LineStyle.Width = 0
	spread, err := plotter.NewXErrorBars(quartile{
		plotter.XYs{{X: s.Median, Y: at}}, plotter.XErrors{{Low: s.Median - s.Q1, High: s.Q3 - s.Median}},
	})
	if err != nil {
		return err
	}
	spread.CapWidth = quartiles
	figure, err := plotter.NewLabels(plotter.XYLabels{
		XYs: plotter.XYs{{X: s.Q3, Y: at}}, Labels: []string{fmt.Sprintf("%.1f", s.Median)},
	})
	if err != nil {
		return err
	}
	figure.Offset = vg.Point{X: aside}
	svg.Sans(&figure.TextStyle[0])
	figure.TextStyle[0].YAlign = text.YCenter
	p.Add(bars, spread, figure)
	return nil
}
