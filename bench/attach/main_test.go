package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationBench runs the whole of it in a guest, for two rounds and a batch.
func TestIntegrationBench(t *testing.T) {
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("boots a guest")
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	samples := filepath.Join(t.TempDir(), "samples")
	var stdout, stderr strings.Builder
	met, err := bench(ctx, options{rounds: 2, batches: 1, cpus: 1, out: samples}, &stdout, &stderr)
	if errors.Is(err, vmlab.ErrMissing) {
		skip("%v", err)
	}
	require.NoError(t, err)
	t.Log("\n" + stdout.String())
	assert.True(t, met, "without a limit")
	for _, part := range []string{
		"cold attach / raw floor ", "warm attach / bare guest move ", "detach to pool / bare move back ", "16 warm attaches at once / in turn ",
		"  configure ", "  unplug ", "resident memory with 20 attachments",
	} {
		assert.Contains(t, stdout.String(), part)
	}
	raw, err := os.ReadFile(samples)
	require.NoError(t, err)
	for series, n := range map[string]int{attachCold: 2 + warmUps, detachWarm: 2 + warmUps, batchWarmAtOnce: 2, batchColdSerial + eachPart: 2 * batchSize} {
		assert.Equal(t, n, strings.Count(string(raw), `"series":"`+series+`"`), "samples of %s in the file", series)
	}
}
