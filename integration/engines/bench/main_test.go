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

// TestIntegrationBench runs all of it but Docker's part in a guest, for one round.
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
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	samples := filepath.Join(t.TempDir(), "samples")
	var stdout, stderr strings.Builder
	met, err := bench(ctx, options{rounds: 1, cpus: 1, out: samples}, &stdout, &stderr)
	if errors.Is(err, vmlab.ErrMissing) {
		skip("%v", err)
	}
	require.NoError(t, err)
	t.Log("\n" + stdout.String())
	assert.True(t, met, "without a limit")
	for _, part := range []string{"ADD, bridge", "DEL, brfuse-warm", "warm ADD / bridge+masquerade+portmap ", "    configure ", "    unplug ", "    retrieve "} {
		assert.Contains(t, stdout.String(), part)
	}
	raw, err := os.ReadFile(samples)
	require.NoError(t, err)
	for _, series := range []string{"ADD/brfuse", "DEL/brfuse-warm"} {
		assert.Equal(t, 1+warmUps, strings.Count(string(raw), `"series":"`+series+`"`), "rounds of %s in the file", series)
	}
}
