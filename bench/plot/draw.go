package main

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/brfuse/brfuse/bench/plot/internal/svg"
)

// point is a 72nd of an inch, which vg counts in.
const point vg.Length = 1

// Sizes of the whole.
const (
	width     = 19 * vg.Centimeter
	margin    = 10 * point
	barStep   = 17 * point
	panelRest = 58 * point // title, axis and its label
)

// colour is grey for what brfuse is compared with.
func (k kind) colour() color.Color {
	return [kinds]color.Color{
		color.NRGBA{0xb4, 0xb4, 0xb4, 0xff}, color.NRGBA{0x3a, 0x78, 0xb8, 0xff}, color.NRGBA{0xd9, 0x7b, 0x2c, 0xff},
	}[k]
}

// render writes the groups as an SVG, one below the other.
func render(w io.Writer, groups []group, series map[string][]float64) error {
	height := margin
	for _, g := range groups {
		height += g.height() + margin
	}
	dc := svg.New(width, height)
	plots := make([]*plot.Plot, len(groups))
	places := make([]draw.Canvas, len(groups))
	top := dc.Max.Y - margin
	for i, g := range groups {
		var err error
		if plots[i], err = panel(g, series); err != nil {
			return fmt.Errorf("draw %q: %w", g.title, err)
		}
		places[i] = draw.Canvas{Canvas: dc.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: margin, Y: top - g.height()}, Max: vg.Point{X: dc.Max.X - margin, Y: top},
		}}
		top -= g.height() + margin
	}
	align(plots, places)
	for i, p := range plots {
		p.Draw(places[i])
	}
	return dc.WriteSVG(w)
}

func (g group) height() vg.Length { return panelRest + vg.Length(len(g.bars))*barStep }

// align has the bars of all panels begin one below the other.
func align(plots []*plot.Plot, places []draw.Canvas) {
	begin := make([]vg.Length, len(plots))
	var last vg.Length
	for i, p := range plots {
		begin[i] = p.DataCanvas(places[i]).Min.X
		last = max(last, begin[i])
	}
	for i := range places {
		places[i].Min.X += last - begin[i]
	}
}
