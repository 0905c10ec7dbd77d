// Package svg writes plots as SVG files that look alike wherever they are seen.
package svg

import (
	"bytes"
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Family is the font's name in the files, and Others are fonts of the same widths,
// or nearly so, for those who don't have the one that was drawn with.
const (
	Family = "font-family:Liberation Sans"
	Others = ",Arial,Helvetica,sans-serif"
)

// Canvas is white, to be drawn on and written.
type Canvas struct {
	draw.Canvas
	svg *vgsvg.Canvas
}

// New returns an empty Canvas.
func New(width, height vg.Length) Canvas {
	svg := vgsvg.NewWith(vgsvg.UseWH(width, height))
	c := draw.New(svg)
	c.SetColor(color.White)
	c.Fill(c.Path())
	return Canvas{c, svg}
}

// WriteSVG writes what was drawn.
func (c Canvas) WriteSVG(w io.Writer) error {
	var b bytes.Buffer
	_, err := c.svg.WriteTo(&b)
	if err == nil {
		_, err = w.Write(bytes.ReplaceAll(b.Bytes(), []byte(Family), []byte(Family+Others)))
	}
	if err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// Sans takes a font that all programs have one like.
func Sans(styles ...*text.Style) {
	for _, style := range styles {
		style.Font.Variant = "Sans"
	}
}

// SansPlot is Sans of all of a plot's texts.
func SansPlot(p *plot.Plot) {
	Sans(&p.Title.TextStyle, &p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Label.TextStyle, &p.Y.Tick.Label)
}
