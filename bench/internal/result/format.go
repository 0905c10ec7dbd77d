package result

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Unit returns what a metric's figures are told in, and what they are multiplied
// by for that.
func Unit(metric string) (unit string, scale float64) {
	switch {
	case metric == Throughput:
		return "MB/s", 1e-6
	case strings.HasSuffix(metric, "-ns"):
		return "µs", 1e-3
	case strings.HasSuffix(metric, "-cpu"):
		return "CPUs", 1
	case strings.HasPrefix(metric, "guest-ns/"), strings.HasPrefix(metric, "qemu-ns/"):
		_, unit, _ := strings.Cut(metric, "-")
		return unit, 1
	}
	return metric, 1
}

// Format tells a figure of a metric in its Unit, by three significant digits.
func Format(metric string, v float64) string {
	_, scale := Unit(metric)
	return Significant(v * scale)
}

// Significant tells v by three significant digits.
func Significant(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(rounded(v)))))
	return strconv.FormatFloat(rounded(v), 'f', max(0, digits), 64)
}

// rounded has three significant digits.
func rounded(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	if err != nil {
		return v // too large to be rounded up
	}
	return r
}

// Percent tells a fraction, with its sign.
func Percent(v float64) string { return fmt.Sprintf("%+.0f %%", 100*v) }

// String tells a ratio; "-" when there is none.
func (r Ratio) String() string {
	if r.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", r.Value)
}

// Fewest is the number of rounds below which an interval tells nothing: the bootstrap
// draws from what there is, and so that of one round has no width.
const Fewest = 3

// Interval tells a ratio's interval; "-" when there is none, or too few rounds for one.
func (r Ratio) Interval() string {
	if r.N < Fewest {
		return "-"
	}
	return fmt.Sprintf("%.3f to %.3f", r.Low, r.High)
}

// Goal tells what the ratio is to be; "-" when it may be anything.
func (c Comparison) Goal() string {
	switch {
	case c.AtLeast > 0 && c.AtMost > 0:
		return fmt.Sprintf("%.2f to %.2f", c.AtLeast, c.AtMost)
	case c.AtLeast > 0:
		return fmt.Sprintf(">= %.2f", c.AtLeast)
	case c.AtMost > 0:
		return fmt.Sprintf("<= %.2f", c.AtMost)
	}
	return "-"
}
