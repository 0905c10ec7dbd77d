package main

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/vnic"
)

func TestReadSteps(t *testing.T) {
	var daemon, agent bytes.Buffer
	log := slog.New(slog.NewTextHandler(&daemon, nil))
	log.Info("vm is up", "vm", "bench")
	log.With("attachment", "00000000aa", "key", "bench/brfuse-warm-1/eth0", "vnic", "00000000bb").Info("attached", "took", time.Second,
		"steps", []vnic.Timing{{Step: "lease", Duration: 1500 * time.Microsecond}, {Step: "total", Duration: 2 * time.Second}})
	log.With("attachment", "00000000aa", "key", "bench/brfuse-warm-1/eth0").Info("detached", "took", time.Second,
		"steps", []vnic.Timing{{Step: "total", Duration: time.Second}}, "note", "")
	log = slog.New(slog.NewTextHandler(&agent, nil))
	log.With("door", "cni", "verb", "ADD", "network", "bench", "container", "brfuse-warm-1", "interface", "eth0", "took", 3*time.Second).Info("cni request done")
	log.With("verb", "DEL", "container", "brfuse-warm-1", "took", time.Second).Warn("cni request failed")

	got, err := readSteps(daemon.String(), agent.String())
	require.NoError(t, err)
	assert.Equal(t, map[call][]part{
		{"brfuse-warm-1", plan.Add}: {{"lease", 1500 * time.Microsecond}, {partTotal, 2 * time.Second}, {partAgent, 3 * time.Second}},
		{"brfuse-warm-1", plan.Del}: {{partTotal, time.Second}},
	}, got)
}

func TestCallWithoutLogs(t *testing.T) {
	rec, err := samples.Create("")
	require.NoError(t, err)
	s := plan.Sample{Round: 1, Kind: fused, Verb: plan.Add, Pod: "p", Took: time.Second}
	require.ErrorContains(t, record(rec, s, []part{{partTotal, 1}}), "pod p: the logs don't have all of ADD")
	require.NoError(t, record(rec, s, []part{{partTotal, time.Second / 4}, {partAgent, time.Second / 2}}))
	assert.Equal(t, []float64{500}, rec.Series["ADD/brfuse/plugin"])
	assert.Equal(t, []float64{250}, rec.Series["ADD/brfuse/channel"])
}
