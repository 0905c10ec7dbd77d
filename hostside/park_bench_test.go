package hostside

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkIntegrationPark measures what a pool's vNIC costs on the host from one
// attachment to the next, on a real tap.
func BenchmarkIntegrationPark(b *testing.B) {
	h, _, _ := newTestHost(b)
	p := testPlug()
	p.Parked = true
	_, err := h.Plug(b.Context(), p)
	require.NoError(b, err)
	p.Parked = false
	var parks, unparks []time.Duration
	for b.Loop() {
		start := time.Now()
		require.NoError(b, h.Unpark(b.Context(), p))
		middle := time.Now()
		require.NoError(b, h.Park(b.Context(), "vm", p.ID))
		unparks, parks = append(unparks, middle.Sub(start)), append(parks, time.Since(middle))
	}
	report := func(name string, all []time.Duration) {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), name+"-p99-µs")
	}
	report("unpark", unparks)
	report("park", parks)
}
