package netplot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/brfuse/brfuse/bench/plot/internal/svg"
)

// box is a bar, or a part of one, in the coordinates of the data.
type box struct {
	x0, x1, y0, y1 float64
	colour         color.Color
	// low and high are the ends of a whisker, upright through the middle; none if
	// both are 0.
	low, high float64
	label     string // above an upright bar, behind a lying one
	lying     bool   // the bar goes from left to right
}

// boxes is a plot.Plotter.
type boxes []box

var (
	ink       = color.NRGBA{0x30, 0x30, 0x30, 0xff}
	thin      = draw.LineStyle{Color: ink, Width: vg.Points(0.7)}
	capWidth  = vg.Points(2.5) // half of the width of a whisker's end
	labelSize = vg.Points(7)
)

// Plot draws the boxes.
func (b boxes) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, r := range b {
		c.FillPolygon(r.colour, c.ClipPolygonXY([]vg.Point{
			{X: x(r.x0), Y: y(r.y0)}, {X: x(r.x1), Y: y(r.y0)}, {X: x(r.x1), Y: y(r.y1)}, {X: x(r.x0), Y: y(r.y1)},
		}))
		middle, top := (x(r.x0)+x(r.x1))/2, y(r.y1)
		if r.low != 0 || r.high != 0 {
			whisker(c, middle, y(r.low), y(r.high))
			top = max(top, y(r.high))
		}
		style := small(p)
		if r.lying {
			style.XAlign, style.YAlign = text.XLeft, text.YCenter
			c.FillText(style, vg.Point{X: x(r.x1) + vg.Points(3), Y: (y(r.y0) + y(r.y1)) / 2}, r.label)
			continue
		}
		style.XAlign, style.YAlign = text.XCenter, text.YBottom
		c.FillText(style, vg.Point{X: middle, Y: top + vg.Points(1.5)}, r.label)
	}
}

// small is the style of figures beside bars.
func small(p *plot.Plot) text.Style {
	style := p.X.Tick.Label
	style.Font.Size, style.Rotation = labelSize, 0
	svg.Sans(&style)
	return style
}

func whisker(c draw.Canvas, x, low, high vg.Length) {
	c.StrokeLine2(thin, x, low, x, high)
	c.StrokeLine2(thin, x-capWidth, low, x+capWidth, low)
	c.StrokeLine2(thin, x-capWidth, high, x+capWidth, high)
}

// DataRange covers the boxes and whiskers.
func (b boxes) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax, ymin, ymax = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, r := range b {
		xmin, xmax = min(xmin, r.x0), max(xmax, r.x1)
		ymin, ymax = min(ymin, r.y0), max(ymax, r.y1, r.high)
	}
	return xmin, xmax, ymin, ymax
}

// latency is a median with two whiskers upwards, a thick and a thin one.
type latency struct {
	x, p50, p90, p99 float64
	colour           color.Color
}

// latencies is a plot.Plotter.
type latencies []latency

// Plot draws a dot at each median and its whiskers.
func (l latencies) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, m := range l {
		at := x(m.x)
		thick, fine := thin, thin
		thick.Color, fine.Color = m.colour, m.colour
		thick.Width, fine.Width = vg.Points(3), vg.Points(1)
		c.StrokeLine2(fine, at, y(m.p50), at, y(m.p99))
		c.StrokeLine2(fine, at-capWidth, y(m.p99), at+capWidth, y(m.p99))
		c.StrokeLine2(thick, at, y(m.p50), at, y(m.p90))
		c.DrawGlyph(draw.GlyphStyle{Color: m.colour, Radius: vg.Points(3.2), Shape: draw.CircleGlyph{}}, vg.Point{X: at, Y: y(m.p50)})
	}
}

// DataRange covers the whiskers.
func (l latencies) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax, ymin, ymax = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, m := range l {
		xmin, xmax = min(xmin, m.x), max(xmax, m.x)
		ymin, ymax = min(ymin, m.p50), max(ymax, m.p99, m.p90, m.p50)
	}
	return xmin, xmax, ymin, ymax
}
