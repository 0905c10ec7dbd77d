// Package stats sums up the samples of a benchmark by numbers that outliers
// don't move: a shared machine has many of them.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Summary describes some samples.
type Summary struct {
	N                             int
	Min, P10, Q1, Median, Q3, P90 float64
}

// Summarize returns the summary of xs, which it leaves as they are. That of no
// samples is zero.
func Summarize(xs []float64) Summary {
	if len(xs) == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(xs))
	return Summary{
		N: len(s), Min: s[0], P10: quantile(s, 0.1), Q1: quantile(s, 0.25),
		Median: quantile(s, 0.5), Q3: quantile(s, 0.75), P90: quantile(s, 0.9),
	}
}

// quantile interpolates between the two closest of the sorted samples.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Ratio is a ratio of two medians with its 95 % confidence interval.
type Ratio struct {
	Value, Low, High float64
}

// resamples are enough to make the interval's bounds steady to about 1 %.
const resamples = 10_000

// RatioOfMedians returns median(b)/median(a) and, by the percentile bootstrap
// (Efron 1979), the interval that it lies in. Samples of equal index were taken
// in the same round, and are drawn together: what slows down a round slows down
// both. The same samples give the same interval. a and b must be of the same
// length; of none, all is NaN.
func RatioOfMedians(b, a []float64) Ratio {
	n := len(a)
	if n == 0 {
		return Ratio{math.NaN(), math.NaN(), math.NaN()}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	ra, rb, ratios := make([]float64, n), make([]float64, n), make([]float64, resamples)
	for k := range ratios {
		for i := range n {
			j := rng.IntN(n)
			ra[i], rb[i] = a[j], b[j]
		}
		ratios[k] = medianOf(rb) / medianOf(ra)
	}
	slices.Sort(ratios)
	return Ratio{
		Value: Summarize(b).Median / Summarize(a).Median,
		Low:   quantile(ratios, 0.025), High: quantile(ratios, 0.975),
	}
}

// medianOf returns the median of xs and sorts them.
func medianOf(xs []float64) float64 {
	slices.Sort(xs)
	return quantile(xs, 0.5)
}
