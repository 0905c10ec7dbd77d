package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// idle is the workload of doing nothing: what the guest's timers and the agent
// cost meanwhile. It is reported and taken off nothing.
const (
	idle     = "idle"
	idleTime = time.Second
)

// burstKind is the kind of workload that burst.go has.
const burstKind = "udp_stream_rx"

// workload is what is counted, so many messages of it that an idle guest's work
// meanwhile is small beside the whole. The server in the pod sends streams, as fast
// as it can: its guest is busy all the time then, which comes out the same on a
// fast machine and on a slow one, as datagrams at some rate do not.
type workload struct {
	name  string
	count int
	rigs  []string
}

var workloads = []workload{
	{"udp_stream/64", 12000, both},
	{"udp_stream/512", 8000, both},
	{"udp_stream/1400", 6000, both},
	{burstKind + "/64", bursts * burstLen, onHost},
	{burstKind + "/512", bursts * burstLen, onHost},
	{burstKind + "/1400", bursts * burstLen, onHost},
	{"udp_rr/64", 1500, both},
	{"tcp_rr/64", 1500, both},
	{"tcp_rr/1024", 1500, both},
	{"tcp_stream/16384", 2000, both},
	{"tcp_crr/64", 500, both},
}

var (
	onHost = []string{result.Host}
	both   = []string{result.Host, result.Pair}
)

// names returns the names of the workloads of some rigs, that of doing nothing first.
func names(rigs ...string) []string {
	all := []string{idle}
	for _, w := range workloads {
		if slices.ContainsFunc(w.rigs, func(r string) bool { return slices.Contains(rigs, r) }) {
			all = append(all, w.name)
		}
	}
	return all
}

// countOf returns how many messages a workload has.
func countOf(name string) (int, error) {
	for _, w := range workloads {
		if w.name == name {
			return w.count, nil
		}
	}
	return 0, fmt.Errorf("no workload %q", name)
}

// choose returns those of all that a list, divided by commas, names, in the order
// of all; all of them for an empty list.
func choose(what, list string, all []string) ([]string, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, w := range wanted {
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("no %s %q; there are %s", what, w, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !slices.Contains(wanted, s) }), nil
}
