package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// filled returns a report of two rounds after one to warm up.
func filled(t *testing.T) report {
	t.Helper()
	rec, err := newRecorder("")
	require.NoError(t, err)
	for round, ms := range map[int]time.Duration{-1: 1000, 0: 50, 1: 60} {
		rec.begin(round)
		rec.add(attachFloor, ms*time.Millisecond)
		rec.add(attachFloorReport, (ms-1)*time.Millisecond)
		rec.add(attachFloorMove, 12*time.Millisecond)
		rec.add(attachFloorAddr, time.Millisecond)
		rec.add(attachFused, 2*ms*time.Millisecond)
		rec.add(attachFusedReturn, (2*ms-1)*time.Millisecond)
		rec.add(attachStep+"total", (2*ms-2)*time.Millisecond)
		rec.add(attachStep+"lease", 3*time.Millisecond)
		rec.add(detachFloor, 100*time.Millisecond)
		rec.add(detachFloorAll, 115*time.Millisecond)
		rec.add(detachFused, 125*time.Millisecond)
		rec.add(detachStep+"unplug", 110*time.Millisecond)
	}
	return report{
		env: vmlab.Environment{
			Brfuse: "v1", Kernel: "6.1", CPUs: 2, Load: "1 2 3", QEMU: "7.2.0", Accel: "tcg",
			GuestKernel: "6.0", GuestCPUs: 1, Go: "go1.26",
		},
		loadAfter: "4 5 6", series: rec.series,
		memory: memory{Attachments: 20, Daemon: 30 << 10, Agent: 10<<10 + 512},
	}
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
	}{{"none", 0, true}, {"above both", 2.1, true}, {"below one", 1.5, false}, {"below both", 1.1, false}} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			met, err := filled(t).print(&out, tc.limit)
			require.NoError(t, err)
			assert.Equal(t, tc.met, met)
			assert.Equal(t, !tc.met, strings.Contains(out.String(), "limit of -fail-above"))
		})
	}
}

func TestRecorderFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "samples")
	rec, err := newRecorder(file)
	require.NoError(t, err)
	rec.begin(-1)
	rec.add("a", 5)
	rec.begin(0)
	rec.add("a", 6)
	require.NoError(t, rec.close())
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var got []sample
	for line := range strings.Lines(string(raw)) {
		var s sample
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		got = append(got, s)
	}
	assert.Equal(t, []sample{{"a", 0, 5}, {"a", 1, 6}}, got)
	assert.Len(t, rec.series["a"], 1, "a round to warm up counts for nothing")
}

func TestResident(t *testing.T) {
	n, err := resident([]byte("Name:\tx\nVmHWM:\t 9999 kB\nVmRSS:\t  1234 kB\nThreads:\t1\n"))
	require.NoError(t, err)
	assert.Equal(t, 1234, n)
	_, err = resident([]byte("Name:\tx\nState:\tZ (zombie)\n"))
	assert.ErrorContains(t, err, "no VmRSS")
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		args string
		want options
		err  string
	}{
		{args: "", want: options{rounds: 30, cpus: 1}},
		{args: "-rounds 5 -cpus 2 -o x -fail-above 1.3", want: options{rounds: 5, cpus: 2, out: "x", failAbove: 1.3}},
		{args: "-rounds 0", err: "-rounds 0 is not in 1-10000"},
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

func TestLimitOfDefaults(t *testing.T) {
	assert.LessOrEqual(t, options{rounds: 30}.limit(), 5*time.Minute)
}
