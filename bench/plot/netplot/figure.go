package netplot

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/brfuse/brfuse/bench/plot/internal/svg"
)

// figure is an SVG: panels in rows, and a legend for all of them below.
type figure struct {
	name    string // of the file
	title   string
	panels  []*plot.Plot
	columns int // of panels; 0 is 2, or 1 if there is one only
	height  vg.Length
	legend  []entry
}

// entry is a line of a legend.
type entry struct {
	label  string
	colour color.Color
}

// Sizes.
const (
	width       = 24 * vg.Centimeter
	margin      = vg.Length(10)
	panelHeight = 6.5 * vg.Centimeter
	titleHeight = vg.Length(32)
	legendStep  = vg.Length(16)
	swatch      = vg.Length(9)
)

func (f figure) write(w io.Writer) error {
	columns, height := f.columns, f.height
	if columns == 0 {
		columns = min(2, len(f.panels))
	}
	if height == 0 {
		height = panelHeight
	}
	rows := (len(f.panels) + columns - 1) / columns
	style := legendStyle()
	lines := legendLines(style, f.legend, width-2*margin)
	total := titleHeight + vg.Length(rows)*(height+margin) + vg.Length(len(lines))*legendStep + margin
	c := svg.New(width, total)
	title := style
	title.Font.Size, title.YAlign = 13, text.YTop
	c.FillText(title, vg.Point{X: margin, Y: c.Max.Y - 6}, f.title)
	panelWidth := (width - margin) / vg.Length(columns)
	for i, p := range f.panels {
		svg.SansPlot(p)
		left := margin + panelWidth*vg.Length(i%columns)
		top := c.Max.Y - titleHeight - (height+margin)*vg.Length(i/columns)
		p.Draw(draw.Canvas{Canvas: c.Canvas.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: left, Y: top - height}, Max: vg.Point{X: left + panelWidth - margin, Y: top},
		}})
	}
	drawLegend(c.Canvas, style, lines)
	if err := c.WriteSVG(w); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

func legendStyle() text.Style {
	style := plot.New().Legend.TextStyle
	style.Font.Size, style.XAlign, style.YAlign = 10, text.XLeft, text.YCenter
	svg.Sans(&style)
	return style
}

// legendLines breaks a legend into lines that fit.
func legendLines(style text.Style, all []entry, fit vg.Length) [][]entry {
	var lines [][]entry
	var used vg.Length
	for _, e := range all {
		need := entryWidth(style, e)
		if len(lines) == 0 || used+need > fit {
			lines, used = append(lines, nil), 0
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], e)
		used += need
	}
	return lines
}

func entryWidth(style text.Style, e entry) vg.Length { return style.Width(e.label) + swatch + 24 }

func drawLegend(c draw.Canvas, style text.Style, lines [][]entry) {
	for i, line := range lines {
		y := margin/2 + legendStep*(vg.Length(len(lines)-1-i)+0.5)
		var sum vg.Length
		for _, e := range line {
			sum += entryWidth(style, e)
		}
		x := (width - sum) / 2
		for _, e := range line {
			c.FillPolygon(e.colour, []vg.Point{
				{X: x, Y: y - swatch/2}, {X: x + swatch, Y: y - swatch/2}, {X: x + swatch, Y: y + swatch/2}, {X: x, Y: y + swatch/2},
			})
			c.FillText(style, vg.Point{X: x + swatch + 5, Y: y}, e.label)
			x += entryWidth(style, e)
		}
	}
}

// newPanel returns an empty panel with a grid of horizontal lines.
func newPanel(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size = 11
	p.Title.Padding = 4
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font.Size = 9.5
		axis.Tick.Label.Font.Size = 9
		axis.Tick.Marker = ticks{}
	}
	return p
}
