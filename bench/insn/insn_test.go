package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationInstructions keeps rig host within its budgets.
func TestIntegrationInstructions(t *testing.T) {
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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	samples := filepath.Join(t.TempDir(), "samples")
	var stdout, stderr strings.Builder
	met, err := bench(ctx, options{
		rigs: []string{result.Host}, topologies: "native,nat,fused", workloads: names(result.Host), rounds: 3, most: 6, out: samples,
	}, &stdout, &stderr)
	if errors.Is(err, vmlab.ErrMissing) || errors.Is(err, exec.ErrNotFound) {
		skip("%v", err)
	}
	require.NoError(t, err, stderr.String())
	t.Log(stdout.String())
	assert.True(t, met, "a budget is broken or a series scatters, as the table above says")

	set, err := result.ReadFiles(samples)
	require.NoError(t, err)
	assert.Len(t, set.Environments, 1)
	var judged int
	for _, b := range budgets {
		if b.rig == result.Host {
			judged++
		}
	}
	assert.Len(t, judge(budgets, set), judged, "every budget of the rig has its series")
}
