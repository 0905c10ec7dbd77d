package main

import (
	"bytes"
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
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
	canvas := vgsvg.NewWith(vgsvg.UseWH(width, height))
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Path())
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
	var svg bytes.Buffer
	_, err := canvas.WriteTo(&svg)
	if err == nil {
		_, err = w.Write(bytes.ReplaceAll(svg.Bytes(), []byte(family), []byte(family+others)))
	}
	if err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// others are fonts of the same widths, or nearly so, for those who don't have the
// one that was drawn with.
const (
	family = "font-family:Liberation Sans"
	others = ",Arial,Helvetica,sans-serif"
)

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
