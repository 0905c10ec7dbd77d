package netplot

import (
	"math"
	"strconv"

	"gonum.org/v1/plot"
)

// ticks is a plot.Ticker of about five round numbers.
type ticks struct{}

// Ticks returns them, all with labels.
func (ticks) Ticks(low, high float64) []plot.Tick {
	if !(high > low) || math.IsInf(high-low, 0) {
		return nil
	}
	step := roundStep((high - low) / 5)
	digits := max(0, int(-math.Floor(math.Log10(step))))
	var all []plot.Tick
	for n := math.Ceil(low / step); n*step <= high*(1+1e-9); n++ {
		all = append(all, plot.Tick{Value: n * step, Label: strconv.FormatFloat(n*step, 'f', digits, 64)})
	}
	return all
}

// roundStep returns 1, 2 or 5, times a power of ten, of about v.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	switch v /= power; {
	case v < 1.5:
		return power
	case v < 3.5:
		return 2 * power
	case v < 7.5:
		return 5 * power
	}
	return 10 * power
}

// powers is a plot.Ticker for a logarithmic axis: 1, 2 and 5, times powers of ten.
type powers struct{}

// Ticks returns those between, all with labels.
func (powers) Ticks(low, high float64) []plot.Tick {
	if !(low > 0) || !(high > low) || math.IsInf(high, 0) {
		return nil
	}
	var all []plot.Tick
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if v := n * power; v >= low && v <= high {
				all = append(all, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 6, 64)})
			}
		}
	}
	return all
}
