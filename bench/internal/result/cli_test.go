package result

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadSamplesOfTheCommand reads a file of `brfuse bench --samples`, which
// TestSamples of package cli compares with what that writes.
func TestReadSamplesOfTheCommand(t *testing.T) {
	s, err := ReadFiles(filepath.Join("..", "..", "..", "internal", "cli", "testdata", "samples.jsonl"))
	require.NoError(t, err)
	assert.Equal(t, []string{Pair}, s.Rigs())
	for _, workload := range []string{RoundTrip, Stream, Datagrams} {
		for _, topology := range []string{Native, NAT, Fused} {
			assert.Len(t, s.Values(Ref{Pair, topology, workload, Rate}), 2, "%s %s", topology, workload)
		}
	}
	known := []string{
		Throughput, Rate, P50, P90, P99, P999, Loss, Retransmits, Drops, GuestUser, GuestSystem, GuestSoftirq, GuestIRQ, GuestCPU,
		GuestTime, GuestTimeKiB,
	}
	for _, m := range s.Samples {
		for name := range m.Metrics {
			assert.Contains(t, known, name)
		}
	}
	nat := Ref{Pair, NAT, RoundTrip, P50}
	assert.Len(t, s.Values(nat), 2)
	assert.InEpsilon(t, 2, s.Ratio(nat, Ref{Pair, Native, RoundTrip, P50}).Value, 0.001)
	assert.InEpsilon(t, 0.5, s.Ratio(Ref{Pair, NAT, Datagrams, Rate}, Ref{Pair, Native, Datagrams, Rate}).Value, 0.001)
	assert.InEpsilon(t, 1, s.Ratio(Ref{Pair, Fused, Stream, Throughput}, Ref{Pair, Native, Stream, Throughput}).Value, 0.001)
	h := s.Latency(Pair, Fused, RoundTrip)
	require.NotNil(t, h)
	assert.Equal(t, int64(2), h.TotalCount())
}
