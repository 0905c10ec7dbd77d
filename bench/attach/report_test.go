package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/samples"
)

// filled returns a report of two rounds after one to warm up.
func filled(t *testing.T, batches bool) report {
	t.Helper()
	rec, err := samples.Create("")
	require.NoError(t, err)
	for round, ms := range []time.Duration{1000, 50, 60} {
		rec.Begin(round)
		for i, series := range []string{attachFloor, attachCold, attachBare, attachWarm, detachFloor, detachCold, detachBare, detachWarm, attachFast, detachFast} {
			took := ms * time.Duration(1+i%2) * time.Millisecond
			rec.Add(series, took)
			for j, part := range []string{devicePart, reportPart, movePart, addressPart, returnPart, stepPart + "total", stepPart + "lease"} {
				rec.Add(series+part, took/time.Duration(2+j))
			}
		}
		if !batches {
			continue
		}
		for i, series := range []string{batchColdSerial, batchColdAtOnce, batchWarmSerial, batchWarmAtOnce} {
			for j, part := range []string{"", eachPart, detachPart, detachEachPart} {
				rec.Add(series+part, ms*time.Duration(10-i)*time.Duration(10-j)*time.Millisecond)
			}
		}
	}
	r := report{
		env: vmlab.Environment{
			Brfuse: "v1", Kernel: "6.1", CPUs: 2, Load: "1 2 3", QEMU: "7.2.0", Accel: "tcg",
			GuestKernel: "6.0", GuestCPUs: 1, Go: "go1.26",
		},
		loadAfter: "4 5 6", series: rec.Series,
		memory: memory{Attachments: 20, Daemon: 30 << 10, Agent: 10<<10 + 512},
	}
	for _, c := range comparisons(batches) {
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
	met, err := filled(t, true).print(&out, 0)
	require.NoError(t, err)
	assert.True(t, met, "without a limit")
	assert.Equal(t, string(want), out.String())
}

func TestReportLimit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit float64
		met   bool
	}{{"none", 0, true}, {"above all", 2.1, true}, {"below all", 1.5, false}} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			met, err := filled(t, true).print(&out, tc.limit)
			require.NoError(t, err)
			assert.Equal(t, tc.met, met)
			assert.Equal(t, !tc.met, strings.Contains(out.String(), "limit of -fail-above"))
		})
	}
}

func TestReportWithoutBatches(t *testing.T) {
	var out strings.Builder
	_, err := filled(t, false).print(&out, 0)
	require.NoError(t, err)
	assert.NotContains(t, out.String(), "at once")
	assert.Contains(t, out.String(), "detach to pool / bare move back")
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
		{args: "", want: options{rounds: 30, batches: 10, cpus: 1}},
		{args: "-rounds 5 -batches 0 -cpus 2 -o x -fail-above 1.3", want: options{rounds: 5, cpus: 2, out: "x", failAbove: 1.3}},
		{args: "-rounds 0", err: "-rounds 0 is not in 1-10000"},
		{args: "-batches -1", err: "-batches -1 is not in 0-10000"},
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
	assert.Equal(t, setUpLimit+33*roundLimit, options{rounds: 30}.limit())
	assert.LessOrEqual(t, options{rounds: 30, batches: 10}.limit(), 15*time.Minute)
}
