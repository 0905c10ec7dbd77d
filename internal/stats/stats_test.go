package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSummarize(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []float64
		want Summary
	}{
		{"none", nil, Summary{}},
		{"one", []float64{3}, Summary{N: 1, Min: 3, P10: 3, Q1: 3, Median: 3, Q3: 3, P90: 3}},
		{"even", []float64{4, 1, 2, 3}, Summary{N: 4, Min: 1, P10: 1.3, Q1: 1.75, Median: 2.5, Q3: 3.25, P90: 3.7}},
		{"odd", []float64{50, 10, 40, 20, 30}, Summary{N: 5, Min: 10, P10: 14, Q1: 20, Median: 30, Q3: 40, P90: 46}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Summarize(tc.in)
			assert.Equal(t, tc.want.N, got.N)
			assert.InDeltaSlice(t, []float64{tc.want.Min, tc.want.P10, tc.want.Q1, tc.want.Median, tc.want.Q3, tc.want.P90},
				[]float64{got.Min, got.P10, got.Q1, got.Median, got.Q3, got.P90}, 1e-9)
		})
	}
}

func TestSummarizeLeavesSamples(t *testing.T) {
	in := []float64{3, 1, 2}
	Summarize(in)
	assert.Equal(t, []float64{3, 1, 2}, in)
}

func TestRatioOfMedians(t *testing.T) {
	t.Run("constant", func(t *testing.T) {
		got := RatioOfMedians([]float64{3, 3, 3}, []float64{2, 2, 2})
		assert.Equal(t, Ratio{1.5, 1.5, 1.5}, got)
	})
	t.Run("none", func(t *testing.T) {
		assert.True(t, math.IsNaN(RatioOfMedians(nil, nil).Value))
	})
	t.Run("paired", func(t *testing.T) {
		// The rounds differ much and the ratio within each of them doesn't.
		a := []float64{10, 20, 30, 40, 50, 60, 70}
		b := make([]float64, len(a))
		for i := range a {
			b[i] = 1.25 * a[i]
		}
		got := RatioOfMedians(b, a)
		assert.InDeltaSlice(t, []float64{1.25, 1.25, 1.25}, []float64{got.Value, got.Low, got.High}, 1e-9)
	})
}

// TestRatioCovers takes samples whose true ratio is known: about 95 % of the
// intervals have to hold it.
func TestRatioCovers(t *testing.T) {
	const runs, n, want = 60, 30, 1.2
	rng := rand.New(rand.NewPCG(7, 7))
	covered := 0
	for range runs {
		a, b := make([]float64, n), make([]float64, n)
		for i := range n {
			a[i] = 100 + 10*rng.NormFloat64()
			b[i] = want * (100 + 10*rng.NormFloat64())
		}
		r := RatioOfMedians(b, a)
		if r.Low <= want && want <= r.High {
			covered++
		}
	}
	assert.GreaterOrEqual(t, covered, runs*85/100)
}
