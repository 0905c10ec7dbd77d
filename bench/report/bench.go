package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// names are those of workloads' kinds in the benchmark format. A kind that isn't
// here gets a capital.
var names = map[string]string{
	"tcp_rr": "TCPRR", "udp_rr": "UDPRR", "tcp_crr": "TCPCRR", "http": "HTTP",
	"tcp_stream": "TCPStream", "udp_stream": "UDPStream",
}

// higher are the metrics that are better when they are higher; of all others it is
// the other way round.
var higher = []string{result.Throughput, result.Rate}

// benchFormat writes the samples in Go's benchmark format, a line each. Compare
// topologies by benchstat -col /topology.
func benchFormat(w io.Writer, set *result.Set) error {
	out := benchfmt.NewWriter(w)
	for _, unit := range higher {
		if err := out.Write(&benchfmt.UnitMetadata{
			UnitMetadataKey: benchfmt.UnitMetadataKey{Unit: unit, Key: "better"}, OrigUnit: unit, Value: "higher",
		}); err != nil {
			return fmt.Errorf("write benchmark format: %w", err)
		}
	}
	for i := range set.Samples {
		if len(set.Samples[i].Metrics) == 0 {
			continue // such a line can't be read
		}
		env, _ := set.EnvironmentOf(i)
		if err := out.Write(&benchfmt.Result{
			Config: config(env), Name: benchfmt.Name(benchName(&set.Samples[i])), Iters: 1, Values: values(&set.Samples[i]),
		}); err != nil {
			return fmt.Errorf("write benchmark format: %w", err)
		}
	}
	return nil
}

// benchName ends with the size or the like: a name that ends with a dash and a
// number is read as one with a number of CPUs.
func benchName(m *result.Sample) string {
	w := result.ParseWorkload(m.Workload)
	kind, receives := strings.CutSuffix(w.Kind, "_rx")
	name, known := names[kind]
	if !known {
		name = strings.ToUpper(kind[:1]) + kind[1:]
	}
	name += "/rig=" + m.Rig + "/topology=" + m.Topology
	if receives {
		name += "/pod=receives"
	} else if strings.HasSuffix(kind, "_stream") {
		name += "/pod=sends"
	}
	if w.Rest != "" {
		name += "/test=" + strings.ReplaceAll(w.Rest, "/", "_")
	}
	if w.Flows > 1 {
		name += "/flows=" + strconv.Itoa(w.Flows)
	}
	if w.Size > 0 {
		name += "/size=" + strconv.Itoa(w.Size)
	}
	return name
}

func values(m *result.Sample) []benchfmt.Value {
	var all []benchfmt.Value
	for _, unit := range slices.Sorted(maps.Keys(m.Metrics)) {
		all = append(all, benchfmt.Value{Value: m.Metrics[unit], Unit: unit})
	}
	return all
}

// config leaves out what differs between runs on the same machine, by which
// benchstat would set them apart.
func config(e result.Environment) []benchfmt.Config {
	var all []benchfmt.Config
	add := func(key, value string) {
		if value != "" {
			all = append(all, benchfmt.Config{Key: key, Value: []byte(value), File: true})
		}
	}
	add("goos", "linux")
	add("goarch", e.Arch)
	add("cpu", e.CPU)
	add("kernel", e.Kernel)
	add("qemu", e.QEMU)
	add("accel", e.Accel)
	add("guest-kernel", e.GuestKernel)
	if e.QEMU != "" {
		add("vhost", strconv.FormatBool(e.Vhost))
		add("guest-cpus", strconv.Itoa(e.GuestCPUs))
	}
	return all
}
