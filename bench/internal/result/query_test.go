package result

import (
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// series adds the values of rounds from 1 on; negative ones are left out.
func series(t *testing.T, s *Set, r Ref, values ...float64) {
	t.Helper()
	for i, v := range values {
		if v < 0 {
			continue
		}
		require.NoError(t, s.Add(Sample{
			Rig: r.Rig, Topology: r.Topology, Workload: r.Workload, Round: i + 1, Metrics: map[string]float64{r.Metric: v},
		}))
	}
}

func ref(topology, metric string) Ref { return Ref{Host, topology, RoundTrip, metric} }

func TestRatio(t *testing.T) {
	for _, tc := range []struct {
		name      string
		of, to    []float64
		n         int
		value     float64
		low, high float64
	}{
		{"paired", []float64{20, 40, 60}, []float64{10, 20, 30}, 3, 2, 2, 2},
		{"a round is missing in one", []float64{20, -1, 60, 900}, []float64{10, 7, 30}, 2, 2, 2, 2},
		{"none", nil, []float64{1}, 0, 0, 0, 0},
		{"no round in common", []float64{-1, 3}, []float64{4}, 0, 0, 0, 0},
		{"by zero", []float64{1}, []float64{0}, 0, 0, 0, 0},
		{"by zero in a resample", []float64{1, 1, 1}, []float64{0, 2, 2}, 0, 0, 0, 0},
		{"of zero", []float64{0}, []float64{2}, 1, 0, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Set
			series(t, &s, ref(Fused, P50), tc.of...)
			series(t, &s, ref(Native, P50), tc.to...)
			got := s.Ratio(ref(Fused, P50), ref(Native, P50))
			assert.Equal(t, tc.n, got.N)
			assert.InDeltaSlice(t, []float64{tc.value, tc.low, tc.high}, []float64{got.Value, got.Low, got.High}, 1e-9)
		})
	}
}

// TestIntervalOfFew: what is drawn from one or two rounds tells nothing of others.
func TestIntervalOfFew(t *testing.T) {
	var s Set
	for i, want := range []string{"-", "-", "-", "1.500 to 2.000"} {
		r := s.Ratio(ref(Fused, P50), ref(Native, P50))
		require.Equal(t, i, r.N)
		assert.Equal(t, want, r.Interval(), "%d rounds", i)
		for topology, value := range map[string]float64{Native: 2, Fused: []float64{3, 4, 4, 4}[i]} {
			require.NoError(t, s.Add(Sample{
				Rig: Host, Topology: topology, Workload: RoundTrip, Round: i + 1, Metrics: map[string]float64{P50: value},
			}))
		}
	}
}

// TestRatioOfRuns has two runs: round 1 of one is not that of the other.
func TestRatioOfRuns(t *testing.T) {
	var s Set
	series(t, &s, ref(Native, P50), 10)
	series(t, &s, ref(Fused, P50), 20)
	s.Begin()
	series(t, &s, ref(Native, P50), 1000)
	series(t, &s, ref(Fused, P50), 2000)
	got := s.Ratio(ref(Fused, P50), ref(Native, P50))
	assert.Equal(t, 2, got.N)
	assert.InDelta(t, 2, got.Low, 1e-9)
	assert.InDelta(t, 2, got.High, 1e-9)
}

func TestDerived(t *testing.T) {
	var s Set
	series(t, &s, ref(Native, Rate), 1000)
	series(t, &s, ref(NAT, Throughput), 1024*1e6)
	assert.InDeltaSlice(t, []float64{1e6}, s.Values(ref(Native, Time)), 1e-6)
	assert.InDeltaSlice(t, []float64{1000}, s.Values(ref(NAT, TimeKiB)), 1e-6)
	assert.Empty(t, s.Values(ref(NAT, Time)))
}

func TestOrder(t *testing.T) {
	var s Set
	for _, topology := range []string{"macvlan", Fused, NAT, Native} {
		series(t, &s, Ref{Pair, topology, "tcp_stream/16384/flows=8", Throughput}, 1)
		series(t, &s, Ref{Pair, topology, "tcp_stream/65536", Throughput}, 1)
	}
	series(t, &s, Ref{Host, Native, "gopher/9", Rate}, 1)
	series(t, &s, Ref{Host, Native, RoundTrip, P50}, 1)
	assert.Equal(t, []string{Host, Pair}, s.Rigs())
	assert.Equal(t, []string{Native, NAT, Fused, "macvlan"}, s.Topologies(Pair, ""))
	assert.Empty(t, s.Topologies(Pair, P50))
	names := func(all []Workload) (n []string) {
		for _, w := range all {
			n = append(n, w.Name)
		}
		return n
	}
	assert.Equal(t, []string{"tcp_stream/65536", "tcp_stream/16384/flows=8"}, names(s.Workloads(Pair, Throughput)))
	assert.Equal(t, []string{RoundTrip, "gopher/9"}, names(s.Workloads(Host, "")))
}

func TestLatencyOfAllRounds(t *testing.T) {
	encode := func(ns int64, n int) string {
		h := hdrhistogram.New(1, 1e9, 3)
		require.NoError(t, h.RecordValues(ns, int64(n)))
		b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		require.NoError(t, err)
		return string(b)
	}
	var s Set
	for round, latency := range []string{encode(1, 1000), encode(100_000, 98), encode(500_000, 2), ""} {
		require.NoError(t, s.Add(Sample{Rig: Host, Topology: NAT, Workload: RoundTrip, Round: round, Latency: latency}))
	}
	h := s.Latency(Host, NAT, RoundTrip)
	require.NotNil(t, h)
	assert.EqualValues(t, 100, h.TotalCount(), "without the round to warm up")
	assert.InEpsilon(t, 100_000, h.ValueAtPercentile(50), 1e-3)
	assert.InEpsilon(t, 500_000, h.ValueAtPercentile(99), 1e-3)
	assert.Nil(t, s.Latency(Host, Fused, RoundTrip))
}

func TestEnvironmentOf(t *testing.T) {
	var s Set
	add := func(rig string) {
		require.NoError(t, s.Add(Sample{Rig: rig, Topology: NAT, Workload: "x", Round: len(s.Samples) + 1, Metrics: map[string]float64{Rate: 1}}))
	}
	add(Host)
	s.AddEnvironment(Environment{Rig: Host, CPU: "host"})
	s.AddEnvironment(Environment{Rig: Pair, CPU: "pair"})
	add(Host)
	add(Pair)
	s.AddEnvironment(Environment{CPU: "both"})
	add(Host)
	s.Begin()
	add(Host)
	var got []string
	for i := range s.Samples {
		e, _ := s.EnvironmentOf(i)
		got = append(got, e.CPU)
	}
	assert.Equal(t, []string{"", "host", "pair", "both", ""}, got)
}

func TestParseWorkload(t *testing.T) {
	for name, want := range map[string]Workload{
		"tcp_stream/16384/flows=4": {Kind: "tcp_stream", Size: 16384, Flows: 4},
		"tcp_rr/64":                {Kind: "tcp_rr", Size: 64, Flows: 1},
		"redis/get":                {Kind: "redis", Flows: 1, Rest: "get"},
		"http/1k":                  {Kind: "http", Flows: 1, Rest: "1k"},
		"x":                        {Kind: "x", Flows: 1},
		"x/flows=0/-3/7/8":         {Kind: "x", Size: 7, Flows: 1, Rest: "flows=0/-3/8"},
	} {
		want.Name = name
		assert.Equal(t, want, ParseWorkload(name))
	}
}

func TestMetricsOfWorkloads(t *testing.T) {
	for name, want := range map[string][4]string{
		"tcp_rr/64":        {P50, P50, GuestTime, Instructions},
		"sockperf/1024":    {P50, P50, GuestTime, Instructions},
		"tcp_stream_rx/64": {Throughput, TimeKiB, GuestTimeKiB, InstructionsKiB},
		"iperf3/tcp":       {Throughput, TimeKiB, GuestTimeKiB, InstructionsKiB},
		"iperf3/udp64":     {Rate, Time, GuestTime, Instructions},
		"udp_stream/64":    {Rate, Time, GuestTime, Instructions},
		"redis/set":        {Rate, Time, GuestTime, Instructions},
	} {
		w := ParseWorkload(name)
		assert.Equal(t, want, [4]string{w.Headline(), w.TimeOf(), w.GuestTimeOf(), w.InstructionsOf()}, name)
	}
}
