package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/internal/netload"
)

func TestRefused(t *testing.T) {
	cases := []struct {
		name string
		args []string
		want string
	}{
		{"argument", []string{"more"}, `unexpected argument "more"`},
		{"both modes", []string{"-quick", "-full"}, "-quick and -full: choose one"},
		{"rig", []string{"-rig", "triple"}, `-rig "triple" is neither host nor pair`},
		{"topology", []string{"-rig", "host", "-topologies", "overlay-fused"}, `rig host has no topology "overlay-fused", it has native, veth`},
		{"workload", []string{"-workloads", "tcp_rr/1024,tcp_rx/1"}, `workload "tcp_rx/1": invalid spec: kind "tcp"`},
		{"size", []string{"-workloads", "udp_stream/1"}, `workload "udp_stream/1": invalid spec: size 1`},
		{"received round trips", []string{"-workloads", "tcp_rr_rx/64"}, `workload "tcp_rr_rx/64": a name is KIND/SIZE`},
		{"rest", []string{"-workloads", "tcp_rr/64/fast"}, `workload "tcp_rr/64/fast": a name is KIND/SIZE`},
		{"rounds", []string{"-rounds", "-1"}, "-rounds -1 is not in 1-1000"},
		{"time", []string{"-time", "2m"}, "-time 2m0s is not in 0-1m0s"},
		{"cpus", []string{"-cpus", "65"}, "-cpus 65 is not in 1-64"},
		{"no rounds", []string{"-rounds", "0"}, `-rounds "0": leave it out for the default`},
		{"no time", []string{"-time", "0s"}, `-time "0s": leave it out for the default`},
		{"no topologies", []string{"-topologies", ""}, `-topologies "": leave it out for the default`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var stderr strings.Builder
			assert.Equal(t, 2, run(t.Context(), c.args, io.Discard, &stderr))
			assert.Contains(t, stderr.String(), "net: "+c.want)
		})
	}
}

func TestPlans(t *testing.T) {
	cases := []struct {
		name       string
		args       []string
		rigs       []string
		topologies []int // of each rig
		foreign    bool
		most       time.Duration // that it takes, as it is estimated
	}{
		{"quick", []string{"-quick"}, []string{"host"}, []int{4}, false, 200 * time.Second},
		{"usual", nil, []string{"host", "pair"}, []int{5, 8}, true, 30 * time.Minute},
		{"full", []string{"-full"}, []string{"host", "pair"}, []int{5, 8}, true, 8 * time.Hour},
		{"some", []string{"-rig", "pair", "-topologies", "native,fused", "-workloads", "tcp_rr/64"}, []string{"pair"}, []int{2}, false, 2 * time.Minute},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o, err := parse(c.args, io.Discard)
			require.NoError(t, err)
			plans, err := o.plans()
			require.NoError(t, err)
			require.Len(t, plans, len(c.rigs))
			foreign := false
			for i, p := range plans {
				assert.Equal(t, c.rigs[i], p.rig)
				assert.Len(t, p.topologies, c.topologies[i])
				foreign = foreign || p.foreign()
				seen := map[string]bool{}
				for _, w := range p.workloads {
					assert.False(t, seen[w.name], "%s is there twice", w.name)
					seen[w.name] = true
				}
			}
			assert.Equal(t, c.foreign, foreign)
			whole := newPace(io.Discard, plans).whole
			assert.Less(t, whole, c.most)
			t.Logf("it takes about %s", whole)
		})
	}
}

// TestGoals has the usual plan measure what the goals compare.
func TestGoals(t *testing.T) {
	o, err := parse(nil, io.Discard)
	require.NoError(t, err)
	plans, err := o.plans()
	require.NoError(t, err)
	have := map[string]bool{}
	for _, w := range plans[0].workloads {
		have[w.name] = true
	}
	for _, want := range append(slices.Clone(foreign), result.RoundTrip, result.Stream, result.StreamRx, result.Datagrams, result.DatagramRx, result.Connects) {
		assert.True(t, have[want], want)
	}
}

func TestParseWorkload(t *testing.T) {
	cases := []struct {
		name string
		want netload.Spec
	}{
		{"tcp_rr/1024", netload.Spec{Kind: netload.TCPRR, Size: 1024, Flows: 1}},
		{"tcp_stream/16384/flows=4", netload.Spec{Kind: netload.TCPStream, Size: 16384, Flows: 4, Reverse: true}},
		{"tcp_stream_rx/64", netload.Spec{Kind: netload.TCPStream, Size: 64, Flows: 1}},
		{"udp_stream/64", netload.Spec{Kind: netload.UDPStream, Size: 64, Flows: 1, Reverse: true}},
		{"udp_stream_rx/1400", netload.Spec{Kind: netload.UDPStream, Size: 1400, Flows: 1}},
		{"tcp_crr/64", netload.Spec{Kind: netload.TCPCRR, Size: 64, Flows: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w, err := parseWorkload(c.name, time.Second)
			require.NoError(t, err)
			c.want.Duration, c.want.WarmUp = time.Second, warmUp
			assert.Equal(t, workload{c.name, c.want, 1}, w)
		})
	}
	w, err := parseWorkload("redis/get", time.Second)
	require.NoError(t, err)
	assert.True(t, w.foreign())
}

// TestOften has loads with goals be measured longer and more often than others.
func TestOften(t *testing.T) {
	for _, c := range []struct {
		name, workload string
		args           []string
		rounds         []int
		time           time.Duration
	}{
		{"with a goal", result.RoundTrip, nil, []int{0, 1, 2, 3, 4, 5}, time.Second},
		{"another", "tcp_rr/64", nil, []int{0, 1, 5}, 450 * time.Millisecond},
		{"a foreign one", "redis/get", nil, []int{0, 1, 5}, 0},
		{"quick", result.RoundTrip, []string{"-quick"}, []int{0, 1, 2, 3, 4, 5}, 700 * time.Millisecond},
		{"as long as it says", result.RoundTrip, []string{"-time", "2s"}, []int{0, 1, 2, 3, 4, 5}, 2 * time.Second},
		{"what it says", "tcp_rr/64", []string{"-workloads", "tcp_rr/64"}, []int{0, 1, 2, 3, 4, 5}, 450 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parse(c.args, io.Discard)
			require.NoError(t, err)
			w, err := o.workload(c.workload)
			require.NoError(t, err)
			var rounds []int
			for round := range 6 {
				if w.in(round) {
					rounds = append(rounds, round)
				}
			}
			assert.Equal(t, c.rounds, rounds)
			assert.Equal(t, c.time, w.spec.Duration)
		})
	}
}

func TestPace(t *testing.T) {
	var out strings.Builder
	p := &pace{out: &out, began: time.Now().Add(-10 * time.Second), whole: 18 * time.Second}
	p.Say("boot %d", 1)
	p.Did(p.whole / 2)
	p.Say("half")
	assert.Equal(t, "    10s  boot 1; it takes about 18s\n    10s of about 20s  half\n", out.String())
}

func TestProgramsWithoutDpkg(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Empty(t, programs(ctx))
}
