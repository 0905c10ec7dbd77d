package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// fakeBed plays the figures of a topology's workload one after the other, and
// the last one for ever.
type fakeBed struct {
	figures map[string][]float64 // by "topology workload"
	log     []string
	up      string
	fails   string // what fails
}

// three is a limit of 3 % for all.
func three(string) float64 { return 0.03 }

func (b *fakeBed) step(what string) error {
	b.log = append(b.log, what)
	if what == b.fails {
		return errors.New("boom")
	}
	return nil
}

func (b *fakeBed) Up(_ context.Context, t string) error {
	if b.up != "" {
		return errors.New(b.up + " is up")
	}
	b.up = t
	return b.step("up " + t)
}

func (b *fakeBed) Down(context.Context) error {
	t := b.up
	b.up = ""
	return b.step("down " + t)
}

func (b *fakeBed) Run(_ context.Context, w string) (map[string]float64, error) {
	what := b.up + " " + w
	left := b.figures[what]
	if len(left) > 1 {
		b.figures[what] = left[1:]
	}
	return map[string]float64{unit(w): left[0], total: left[0], elapsed: 0.5}, b.step(what)
}

func twoByTwo() (plan, *fakeBed) {
	return plan{rig: "host", topologies: []string{"native", "fused"}, workloads: []string{"udp_stream/64", "tcp_rr/64"}, rounds: 2, most: 4, limit: three},
		&fakeBed{figures: map[string][]float64{
			"native udp_stream/64": {999, 100}, "native tcp_rr/64": {200}, "fused udp_stream/64": {90}, "fused tcp_rr/64": {180},
		}}
}

func TestRoundsAlternate(t *testing.T) {
	p, b := twoByTwo()
	out := result.NewWriter(&strings.Builder{})
	var progress strings.Builder
	require.NoError(t, p.measure(t.Context(), b, out, &progress))
	native, fused := "up native|native udp_stream/64|native tcp_rr/64|down native", "up fused|fused udp_stream/64|fused tcp_rr/64|down fused"
	assert.Equal(t, strings.Join([]string{native, fused, fused, native, native, fused}, "|"), strings.Join(b.log, "|"))
	assert.Equal(t, 3, strings.Count(progress.String(), "\n"))
	got := summary(out.Set(), key{"host", "native", "udp_stream/64"})
	assert.Equal(t, 2, got.N, "the round to warm up is none")
	assert.InDelta(t, 100, got.Median, 0)
}

func TestScatterTakesMoreRounds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64 // of the one that scatters, from the round to warm up
		rounds int
		wide   []key
	}{
		{"settles", []float64{0, 180, 200, 180}, 4, nil},
		{"stays", []float64{0, 180, 200, 300, 400}, 5, []key{{"host", "fused", "tcp_rr/64"}}},
		{"none", []float64{0, 180}, 2, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, b := twoByTwo()
			p.limit, p.most = func(string) float64 { return 0.05 }, 5
			b.figures["fused tcp_rr/64"] = tc.values
			out := result.NewWriter(&strings.Builder{})
			require.NoError(t, p.measure(t.Context(), b, out, &strings.Builder{}))
			assert.Equal(t, tc.rounds, summary(out.Set(), key{"host", "fused", "tcp_rr/64"}).N)
			assert.Equal(t, 2, summary(out.Set(), key{"host", "fused", "udp_stream/64"}).N, "only what scatters is measured again")
			assert.Equal(t, tc.wide, p.wide(out.Set()))
			assert.Equal(t, len(tc.wide) == 0, good([]plan{p}, out.Set(), nil))
		})
	}
}

func TestMissTakesMoreRounds(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64 // of the one that misses its budget, from the round to warm up
		rounds int
		met    bool
	}{
		"by chance": {[]float64{0, 202, 206, 202}, 5, true},
		"always":    {[]float64{0, 206}, 5, false},
		"never":     {[]float64{0, 201}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, b := twoByTwo()
			p.most = 5
			p.budgets = []budget{
				{rig: "host", workload: "tcp_rr/64", of: "fused", to: "native", most: 1.015},
				{rig: "pair", workload: "udp_stream/64", of: "fused", to: "native", most: 0.1},
			}
			b.figures["fused tcp_rr/64"] = tc.values
			out := result.NewWriter(&strings.Builder{})
			require.NoError(t, p.measure(t.Context(), b, out, &strings.Builder{}))
			assert.Equal(t, tc.rounds, summary(out.Set(), key{"host", "fused", "tcp_rr/64"}).N)
			assert.Equal(t, tc.rounds, summary(out.Set(), key{"host", "native", "tcp_rr/64"}).N, "both series take part")
			assert.Equal(t, 2, summary(out.Set(), key{"host", "fused", "udp_stream/64"}).N, "only what misses is measured again")
			assert.Equal(t, tc.met, good([]plan{p}, out.Set(), judge(p.budgets, out.Set())))
		})
	}
}

func TestRoundsFail(t *testing.T) {
	for fails, want := range map[string]string{
		"up fused":        "rig host, round 0: set topology fused up: boom",
		"down native":     "rig host, round 0: take topology native down: boom",
		"fused tcp_rr/64": "rig host, round 0: topology fused: tcp_rr/64: boom",
	} {
		t.Run(fails, func(t *testing.T) {
			p, b := twoByTwo()
			b.fails = fails
			err := p.measure(t.Context(), b, result.NewWriter(&strings.Builder{}), &strings.Builder{})
			require.EqualError(t, err, want)
		})
	}
}

// setOf returns a set of one round of rig host: figures by "topology workload".
func setOf(t *testing.T, figures map[string]float64) *result.Set {
	t.Helper()
	set := &result.Set{}
	for what, v := range figures {
		topology, workload, ok := strings.Cut(what, " ")
		require.True(t, ok)
		require.NoError(t, set.Add(result.Sample{Rig: "host", Topology: topology, Workload: workload, Round: 1, Metrics: map[string]float64{
			unit(workload): v, total: 1000 * v, elapsed: 0.5,
		}}))
	}
	return set
}

func TestJudge(t *testing.T) {
	set := setOf(t, map[string]float64{"native tcp_rr/64": 200, "fused tcp_rr/64": 180, "nat tcp_rr/64": 0})
	b := budget{rig: "host", workload: "tcp_rr/64", of: "fused", to: "native", most: 0.9}
	none := b
	none.to = "veth"
	zero := b
	zero.to = "nat"
	low := b
	low.most = 0.89
	got := judge([]budget{b, none, zero, low}, set)
	require.Len(t, got, 2, "a budget without both series is none")
	assert.True(t, got[0].met())
	assert.InDelta(t, 0.9, got[0].ratio, 1e-9)
	assert.False(t, got[1].met())
	assert.True(t, good(nil, set, got[:1]))
	assert.False(t, good(nil, set, got))
}

func TestPrintReport(t *testing.T) {
	p := plan{rig: "host", topologies: []string{"native", "nat", "fused"}, workloads: []string{idle, "tcp_rr/64", "tcp_stream/16384"}, limit: three}
	set := setOf(t, map[string]float64{
		"native tcp_rr/64": 200, "nat tcp_rr/64": 250, "fused tcp_rr/64": 180, "native tcp_stream/16384": 40,
		"native idle": 4000, "nat idle": 4000, "fused idle": 4000,
	})
	require.NoError(t, set.Add(result.Sample{Rig: "host", Topology: "nat", Workload: "tcp_rr/64", Round: 2, Metrics: map[string]float64{unit("tcp_rr/64"): 300}}))
	var b strings.Builder
	require.NoError(t, printReport(&b, []plan{p}, set, judge([]budget{
		{"host", "tcp_rr/64", "fused", "native", 0.95, true}, {"host", "tcp_rr/64", "fused", "nat", 0.6, false},
	}, set)))
	var got []string
	for line := range strings.Lines(b.String()) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			got = append(got, line)
		}
	}
	assert.Equal(t, []string{
		"rig host: instructions, medians native nat fused",
		"idle insn/s 4000 4000 4000", "tcp_rr/64 insn/msg 200 275 180", "tcp_stream/16384 insn/KiB 40 0 0",
		"ratio to native native nat fused",
		"idle insn/s 1.000 1.000 1.000", "tcp_rr/64 insn/msg 1.000 1.375 0.900", "tcp_stream/16384 insn/KiB 1.000 0.000 0.000",
		"ratio to nat native nat fused",
		"idle insn/s 1.000 1.000 1.000", "tcp_rr/64 insn/msg 0.727 1.000 0.655", "tcp_stream/16384 insn/KiB - - -",
		"interquartile range, % of the median native nat fused",
		"idle insn/s 0.00 0.00 0.00", "tcp_rr/64 insn/msg 0.00 9.09 0.00", "tcp_stream/16384 insn/KiB 0.00 0.00 0.00",
		"of the instructions of any run, an idle guest's were at most 5.00 %; they are counted in",
		"rig workload ratio of medians ratio at most",
		"host tcp_rr/64 fused / native 0.900 0.95 goal MET",
		"host tcp_rr/64 fused / nat 0.655 0.60 guard MISSED",
		"rig host: tcp_rr/64 in nat: its spread is 9.1 % after 2 rounds, above 3 %",
	}, got)
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"-rig vm", `no rig "vm"; there are host, pair`},
		{"-workloads tcp_rr/64,nonsense", `no workload "nonsense"`},
		{"-rounds 0", "-rounds 0"},
		{"more", `unexpected argument "more"`},
	} {
		_, err := parse(strings.Fields(tc.args), &strings.Builder{})
		require.ErrorContains(t, err, tc.want, tc.args)
	}
	o, err := parse(strings.Fields("-workloads tcp_rr/64,idle -rig pair -rounds 20"), &strings.Builder{})
	require.NoError(t, err)
	assert.Equal(t, options{rigs: []string{"pair"}, workloads: []string{idle, "tcp_rr/64"}, rounds: 20, most: 20}, o)
	got, err := o.topologiesOf([]string{"native", "fused"})
	require.NoError(t, err)
	assert.Equal(t, []string{"native", "fused"}, got)
}

func TestWorkloads(t *testing.T) {
	for _, w := range workloads {
		parsed := result.ParseWorkload(w.name)
		n, err := countOf(w.name)
		require.NoError(t, err)
		assert.Positive(t, n, w.name)
		assert.Positive(t, parsed.Size, w.name)
	}
	assert.NotContains(t, names(result.Pair), burstKind+"/64")
	_, err := countOf("nonsense")
	require.ErrorContains(t, err, "nonsense")
	for _, b := range budgets {
		assert.Contains(t, names(b.rig), b.workload)
	}
}
