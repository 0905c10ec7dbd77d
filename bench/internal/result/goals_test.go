package result

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/stats"
)

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name            string
		value           float64
		n               int
		atLeast, atMost float64
		want, goal      string
	}{
		{"at most", 1.03, 1, 0, 1.03, Met, "<= 1.03"},
		{"above", 1.04, 1, 0, 1.03, Missed, "<= 1.03"},
		{"at least", 0.97, 1, 0.97, 0, Met, ">= 0.97"},
		{"below", 0.96, 1, 0.97, 0, Missed, ">= 0.97"},
		{"between", 1, 1, 0.9, 1.1, Met, "0.90 to 1.10"},
		{"beside", 1.2, 1, 0.9, 1.1, Missed, "0.90 to 1.10"},
		{"no goal", 7, 1, 0, 0, "", "-"},
		{"not measured", 0, 0, 0.9, 0, Unmeasured, ">= 0.90"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := Finding{Comparison{AtLeast: tc.atLeast, AtMost: tc.atMost}, Ratio{stats.Ratio{Value: tc.value}, tc.n}}
			assert.Equal(t, tc.want, f.Verdict())
			assert.Equal(t, tc.goal, f.Goal())
			assert.Equal(t, tc.want == Missed, Missing([]Finding{f}))
		})
	}
}

func TestTold(t *testing.T) {
	for _, tc := range []struct {
		name             string
		value, low, high float64
		n                int
		atLeast, atMost  float64
		want             string
	}{
		{"met", 0.9, 0.8, 1.0, 7, 0, 1.03, "met"},
		{"met, and may be missed", 0.9, 0.6, 1.6, 7, 0, 1.03, "met, not for sure"},
		{"missed, and may be met", 0.96, 0.9, 1.1, 7, 0.97, 0, "missed, not for sure"},
		{"missed", 0.9, 0.8, 0.95, 7, 0.97, 0, "missed"},
		{"no interval", 0.9, 0.9, 0.9, 2, 0, 1.03, "met"},
		{"no goal", 0.9, 0.6, 1.6, 7, 0, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := Finding{Comparison{AtLeast: tc.atLeast, AtMost: tc.atMost}, Ratio{stats.Ratio{Value: tc.value, Low: tc.low, High: tc.high}, tc.n}}
			assert.Equal(t, tc.want, f.Told())
		})
	}
}

// TestGoals has each goal of the one guest be named once, and none of the pair.
func TestGoals(t *testing.T) {
	seen := map[Ref]bool{}
	withGoal := 0
	for _, c := range goals() {
		require.Equal(t, c.Of.Rig, c.To.Rig)
		require.Equal(t, c.Of.Workload, c.To.Workload)
		require.Equal(t, c.Of.Metric, c.To.Metric)
		key := c.Of
		key.Topology = c.Of.Topology + "/" + c.To.Topology
		assert.False(t, seen[key], "%s twice", key)
		seen[key] = true
		if c.Goal() != "-" {
			withGoal++
			assert.Equal(t, Host, c.Of.Rig)
		}
	}
	assert.Equal(t, 9, withGoal)
}

func TestChecks(t *testing.T) {
	var s Set
	series(t, &s, Ref{Host, NAT, Stream, Throughput}, 100, 110)
	series(t, &s, Ref{Host, NAT, "iperf3/tcp", Throughput}, 80, 88)
	series(t, &s, Ref{Host, Fused, Stream, Throughput}, 100)
	series(t, &s, Ref{Pair, Native, Stream, GuestCPU}, 0.5)
	series(t, &s, Ref{Pair, Native, Stream, QEMUCPU}, 0.7)
	found := s.Checks()
	require.Len(t, found, 2, "only what was measured in both ways")
	assert.Equal(t, "nat: TCP stream, netload / iperf3", found[0].Name)
	assert.InDelta(t, 1.25, found[0].Ratio.Value, 1e-9)
	assert.Equal(t, Missed, found[0].Verdict())
	assert.Equal(t, Met, found[1].Verdict())
}

func TestAblation(t *testing.T) {
	at := func(topology string) Ref { return Ref{Host, topology, Datagrams, Instructions} }
	var s Set
	series(t, &s, at(Native), 100, 100)
	assert.Empty(t, s.Ablation(), "nothing was added")
	series(t, &s, at(Bridged), 130, 130)
	series(t, &s, at(NAT), 180, 180)
	series(t, &s, at(Fused), 90, 90)
	ladders := s.Ablation()
	require.Len(t, ladders, 1)
	l := ladders[0]
	assert.Equal(t, Instructions, l.Metric)
	assert.InDelta(t, 1.8, l.Nested.Value, 1e-9)
	assert.InDelta(t, 0.9, l.Fused.Value, 1e-9)
	require.Len(t, l.Layers, 2)
	assert.Equal(t, "veth and bridge", l.Layers[0].Name, "there are no samples of veth alone")
	assert.InDelta(t, 30, l.Layers[0].Added, 1e-9)
	assert.Equal(t, "NAT", l.Layers[1].Name)
	assert.InDelta(t, 50, l.Layers[1].Added, 1e-9)
	assert.InDelta(t, 0.5, l.Share(l.Layers[1]), 1e-9)
	assert.InDelta(t, 180.0/130, l.Layers[1].Step.Value, 1e-9)
}

// TestAblationAddsUp has the layers of all ladders come to nat.
func TestAblationAddsUp(t *testing.T) {
	s := readSynthetic(t)
	ladders := s.Ablation()
	require.NotEmpty(t, ladders)
	for _, l := range ladders {
		sum := l.Base
		for _, layer := range l.Layers {
			sum += layer.Added
		}
		assert.InEpsilon(t, s.Summary(Ref{l.Rig, NAT, l.Workload.Name, l.Metric}).Median, sum, 1e-9, "%s %s", l.Workload.Name, l.Metric)
	}
}

func TestFormat(t *testing.T) {
	for _, tc := range []struct {
		metric string
		value  float64
		want   string
		unit   string
	}{
		{Throughput, 123_456_789, "123", "MB/s"},
		{P50, 1_234_567, "1230", "µs"},
		{P50, 99_960, "100", "µs"},
		{Rate, 1_234_567, "1230000", "msg/s"},
		{GuestTimeKiB, 2864.3, "2860", "ns/KiB"},
		{TimeKiB, 0.4567, "0.457", "ns/KiB"},
		{GuestCPU, 0.5, "0.500", "CPUs"},
		{Instructions, -42, "-42.0", "insn/msg"},
		{Drops, 0, "0", "drops"},
	} {
		unit, _ := Unit(tc.metric)
		assert.Equal(t, tc.unit, unit)
		assert.Equal(t, tc.want, Format(tc.metric, tc.value), tc.metric)
	}
}
