package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/macro"
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/internal/rig"
	"github.com/brfuse/brfuse/internal/netload"
)

// workload is a load that is measured: of our own generator, or a foreign program's.
type workload struct {
	name  string
	spec  netload.Spec // zero for a foreign program
	every int          // it is measured in every so many rounds, the first and the warm-up among them
}

func (w workload) foreign() bool { return w.spec == netload.Spec{} }

// in tells whether the workload is measured in a round.
func (w workload) in(round int) bool { return round < 1 || (round-1)%w.every == 0 }

// plan is what is measured on one rig.
type plan struct {
	rig        string
	topologies []string
	workloads  []workload
	rounds     int // behind one to warm up
}

func (p plan) pair() bool { return p.rig == result.Pair }

// foreign tells whether programs of others are needed.
func (p plan) foreign() bool { return slices.ContainsFunc(p.workloads, workload.foreign) }

// mode is a choice of workloads and how long they are measured.
type mode struct {
	rounds     int
	time       time.Duration       // of a workload in a round
	rigs       []string            // by default
	topologies []string            // by default; none: all of a rig
	workloads  map[string][]string // by rig
	// main are those on which goals are set, which are measured in every round, for
	// mainTime. The others are measured in every so many rounds.
	main     []string
	mainTime time.Duration
	others   int
}

// warmUp is how long a load runs before it is measured: windows grow, and an emulator
// has to translate the programs that have just begun.
const warmUp = 250 * time.Millisecond

// foreignTime is what programs measure that know whole seconds only.
const foreignTime = time.Second

// everySize is the sizes of the papers' figures, a factor of 4 apart.
func everySize(kind string) []string {
	var all []string
	for _, size := range []int{64, 256, 1024, 4096, 16384, 65536} {
		all = append(all, fmt.Sprintf("%s/%d", kind, size))
	}
	return all
}

var (
	main3  = []string{result.RoundTrip, result.Stream, result.Datagrams}
	flows  = []string{"tcp_stream/16384/flows=2", "tcp_stream/16384/flows=4", "tcp_stream/16384/flows=8"}
	onHost = slices.Concat(
		everySize("tcp_rr"), everySize("tcp_stream"), flows[1:2],
		[]string{"tcp_stream_rx/1024", result.StreamRx, result.Datagrams, "udp_stream/512", "udp_stream/1400", result.DatagramRx, result.Connects},
	)
	onPair = slices.Concat(
		[]string{result.RoundTrip, result.Stream, "tcp_stream/65536"}, flows,
		[]string{result.Datagrams, "udp_stream/1400", result.DatagramRx, result.Connects},
	)
	foreign = []string{"iperf3/tcp", "iperf3/udp64", "sockperf/1024", "redis/get", "redis/set", "http/1k"}
	all     = slices.Concat(
		everySize("tcp_rr"), everySize("tcp_stream"), flows, everySize("tcp_stream_rx"),
		[]string{"udp_rr/64", "udp_stream/64", "udp_stream/256", "udp_stream/512", "udp_stream/1024", "udp_stream/1400"},
		[]string{"udp_stream_rx/64", "udp_stream_rx/512", "udp_stream_rx/1400", result.Connects},
	)
)

// The modes.
var (
	quickMode = mode{
		rounds: 6, time: 700 * time.Millisecond, rigs: []string{result.Host},
		topologies: []string{result.Native, result.Bridged, result.NAT, result.Fused},
		workloads:  map[string][]string{result.Host: main3, result.Pair: main3},
		others:     1,
	}
	usualMode = mode{
		rounds: 9, time: 450 * time.Millisecond, rigs: []string{result.Host, result.Pair},
		workloads: map[string][]string{result.Host: slices.Concat(onHost, foreign), result.Pair: onPair},
		main:      main3, mainTime: time.Second, others: 4,
	}
	fullMode = mode{
		rounds: 21, time: time.Second, rigs: []string{result.Host, result.Pair},
		workloads: map[string][]string{
			result.Host: slices.Concat(all, macro.Workloads()), result.Pair: slices.Concat(all, macro.Workloads()),
		},
		main: main3, mainTime: time.Second, others: 2,
	}
)

// parseWorkload returns the load that a name stands for, measured in each round.
func parseWorkload(name string, measured time.Duration) (workload, error) {
	if slices.Contains(macro.Workloads(), name) {
		return workload{name: name, every: 1}, nil
	}
	n := result.ParseWorkload(name)
	spec := netload.Spec{Size: n.Size, Flows: n.Flows, Duration: measured, WarmUp: warmUp}
	kind, received := strings.CutSuffix(n.Kind, "_rx")
	spec.Kind = netload.Kind(kind)
	stream := spec.Kind == netload.TCPStream || spec.Kind == netload.UDPStream
	spec.Reverse = stream && !received // the client's word: the pod sends
	err := spec.Check()
	if err == nil && (n.Rest != "" || received && !stream) {
		err = fmt.Errorf("a name is KIND/SIZE or KIND/SIZE/flows=N, or of %s", strings.Join(macro.Workloads(), ", "))
	}
	if err != nil {
		return workload{}, fmt.Errorf("workload %q: %w", name, err)
	}
	return workload{name, spec, 1}, nil
}

// workload returns the load that a name stands for, as often and as long as the
// mode has it. Loads and times that the command line names are as it says.
func (o options) workload(name string) (workload, error) {
	w, err := parseWorkload(name, o.time)
	switch {
	case err != nil || len(o.workloads) > 0:
	case !slices.Contains(o.mode.main, name):
		w.every = max(1, o.mode.others)
	case !o.timeSet:
		w.spec.Duration = o.mode.mainTime
	}
	return w, err
}

// plans returns what the options ask for.
func (o options) plans() ([]plan, error) {
	var all []plan
	for _, name := range o.rigs {
		p := plan{rig: name, rounds: o.rounds}
		wanted := o.topologies
		if len(wanted) == 0 {
			wanted = o.mode.topologies
		}
		has := rig.Topologies(p.pair())
		if len(wanted) == 0 {
			wanted = has
		}
		for _, t := range wanted {
			if !slices.Contains(has, t) {
				return nil, fmt.Errorf("rig %s has no topology %q, it has %s", name, t, strings.Join(has, ", "))
			}
		}
		p.topologies = wanted
		names := o.workloads
		if len(names) == 0 {
			names = o.mode.workloads[name]
		}
		for _, n := range names {
			w, err := o.workload(n)
			if err != nil {
				return nil, err
			}
			p.workloads = append(p.workloads, w)
		}
		all = append(all, p)
	}
	return all, nil
}
