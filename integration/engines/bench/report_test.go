package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/samples"
)

// filled returns a report of two rounds after one to warm up.
func filled(t *testing.T) report {
	t.Helper()
	rec, err := samples.Create("")
	require.NoError(t, err)
	for round := range 3 {
		took := time.Duration(10+round) * time.Millisecond
		for kind, times := range map[string]time.Duration{nested: 20, moved: 6, fused: 5, pooled: 4} {
			for _, verb := range []string{plan.Add, plan.Del, plan.Start} {
				parts := []part{{"release", took / 10}, {"park", took / 5}, {partTotal, took / 2}, {partAgent, took * 6 / 10}}
				require.NoError(t, record(rec, plan.Sample{Round: round, Kind: kind, Verb: verb, Took: times * took}, parts))
			}
			rec.Add(dockerRun+kind, times*time.Second)
		}
		rec.Add(dockerRun+nestedOwn, 8*time.Second)
	}
	r := report{
		env: vmlab.Environment{
			Brfuse: "v1", Kernel: "6.1", CPUs: 2, Load: "1 2 3", QEMU: "7.2.0", Accel: "tcg",
			GuestKernel: "6.0", GuestCPUs: 1, Go: "go1.26",
		},
		loadAfter: "4 5 6", series: rec.Series,
	}
	for _, c := range comparisons(true) {
		q, err := rec.Compare(c)
		require.NoError(t, err)
		r.ratios = append(r.ratios, q)
	}
	return r
}

func TestReport(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "report.txt"))
	require.NoError(t, err)
	var out strings.Builder
	met, err := filled(t).print(&out, 0)
	require.NoError(t, err)
	assert.True(t, met, "without a limit")
	assert.Equal(t, string(want), out.String())
}

func TestReportLimit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit float64
		met   bool
	}{{"none", 0, true}, {"above all", 0.25, true}, {"below some", 0.24, false}, {"below all", 0.1, false}} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			met, err := filled(t).print(&out, tc.limit)
			require.NoError(t, err)
			assert.Equal(t, tc.met, met)
			assert.Equal(t, !tc.met, strings.Contains(out.String(), "limit of -fail-above"))
		})
	}
}

func TestReportWithoutDocker(t *testing.T) {
	r := filled(t)
	delete(r.series, dockerRun+fused)
	r.ratios = r.ratios[:len(comparisons(false))]
	var out strings.Builder
	_, err := r.print(&out, 0)
	require.NoError(t, err)
	assert.NotContains(t, out.String(), "docker")
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		args string
		want options
		err  string
	}{
		{args: "", want: options{rounds: 15, dockerRounds: 5, cpus: 1}},
		{args: "-rounds 5 -docker-rounds 0 -cpus 2 -o x -fail-above 0.3", want: options{rounds: 5, cpus: 2, out: "x", failAbove: 0.3}},
		{args: "-rounds 0", err: "-rounds 0 is not in 1-10000"},
		{args: "-docker-rounds -1", err: "-docker-rounds -1 is not in 0-10000"},
		{args: "-cpus 0", err: "-cpus 0 is less than 1"},
		{args: "-fail-above -1", err: "-fail-above -1 is negative"},
		{args: "more", err: `unexpected argument "more"`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var stderr strings.Builder
			got, err := parse(strings.Fields(tc.args), &stderr)
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}
