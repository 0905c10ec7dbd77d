package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/internal/stats"
)

// goal is the ratio to its floor that brfuse is to have.
const goal = 1.3

// comparisons are those of brfuse with the floor, and of pods at once with pods
// in turn.
func comparisons(batches bool) []samples.Comparison {
	all := []samples.Comparison{
		{Name: "cold attach / raw floor", Of: attachCold, To: attachFloor, Goal: goal},
		{Name: "cold detach / raw floor", Of: detachCold, To: detachFloor, Goal: goal},
		{Name: "warm attach / bare guest move", Of: attachWarm, To: attachBare, Goal: goal},
		{Name: "detach to pool / bare move back", Of: detachWarm, To: detachBare, Goal: goal},
		{Name: "warm attach / bare move, expedited", Of: attachWarm, To: attachFast},
		{Name: "detach to pool / bare back, expedited", Of: detachWarm, To: detachFast},
	}
	if !batches {
		return all
	}
	return append(
		all,
		samples.Comparison{Name: "16 cold attaches at once / in turn", Of: batchColdAtOnce, To: batchColdSerial},
		samples.Comparison{Name: "16 warm attaches at once / in turn", Of: batchWarmAtOnce, To: batchWarmSerial},
		samples.Comparison{Name: "16 cold detaches at once / in turn", Of: batchColdAtOnce + detachPart, To: batchColdSerial + detachPart},
		samples.Comparison{Name: "16 detaches to pool at once / in turn", Of: batchWarmAtOnce + detachPart, To: batchWarmSerial + detachPart},
	)
}

// report is what was found.
type report struct {
	env       vmlab.Environment
	loadAfter string
	series    map[string][]float64 // in milliseconds
	ratios    []samples.Ratio
	memory    memory
}

// printer writes and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// print prints the report and tells whether no ratio that has a goal is above
// the limit. 0 is no limit.
func (r report) print(w io.Writer, limit float64) (met bool, err error) {
	p := &printer{w: w}
	r.printEnvironment(p)
	r.printSeries(p)
	r.printSteps(p, "a cold attach", attachCold)
	r.printSteps(p, "a cold detach", detachCold)
	r.printSteps(p, "a warm attach", attachWarm)
	r.printSteps(p, "a detach to the pool", detachWarm)
	r.printBatches(p)
	p.f("\n")
	if p.err == nil {
		p.err = samples.Print(w, r.ratios)
	}
	r.printMemory(p)
	met = limit == 0 || !slices.ContainsFunc(r.ratios, func(q samples.Ratio) bool { return q.Goal > 0 && q.Value > limit })
	if !met {
		p.f("\na ratio is above %g, the limit of -fail-above\n", limit)
	}
	return met, p.err
}

func (r report) printEnvironment(p *printer) {
	e := r.env
	p.f("host    Linux %s, %d CPUs, load %s before and %s after\n", e.Kernel, e.CPUs, e.Load, r.loadAfter)
	p.f("guest   Linux %s, %d CPUs, QEMU %s, %s\n", e.GuestKernel, e.GuestCPUs, e.QEMU, e.Accel)
	p.f("brfuse  %s, %s\n", e.Brfuse, e.Go)
	p.f(`
An attach ends when the pod answers a ping, the first of which is sent when the
host has been told that the pod has its vNIC. The floor's tap, bridge port and
network backend are made beforehand; it sets an IPv4 and an IPv6 address and no
routes. The NIC of the bare move is plugged and its tap is a port of the bridge;
it is moved, named and set up by one message, gets addresses and default routes
by another, and goes back by one. Expedited is the same while the kernel expedites
its grace periods, as brfuse-agent has it do while it moves a vNIC. brfuse does all of its work within the call.
When its detach returns, nothing is left, on the host either, or the vNIC is in
the pool: like new, and out of the bridge.
`)
}

func (r report) printSeries(p *printer) {
	p.head("milliseconds")
	p.row("attach, raw floor: device_add until the pod answers", r.series[attachFloor])
	p.parts(r.series, attachFloor)
	p.row("attach, cold: call until the pod answers", r.series[attachCold])
	p.row("  until the call returns", r.series[attachCold+returnPart])
	p.row("attach, bare move: order until the pod answers", r.series[attachBare])
	p.parts(r.series, attachBare)
	p.row("attach, bare move, grace periods expedited", r.series[attachFast])
	p.row("attach, warm: call until the pod answers", r.series[attachWarm])
	p.row("  until the call returns", r.series[attachWarm+returnPart])
	p.row("detach, raw floor: device_del until all is gone", r.series[detachFloor])
	p.row("  until the NIC is gone", r.series[detachFloor+devicePart])
	p.row("detach, cold: call until it returns", r.series[detachCold])
	p.row("detach, bare move back: order until the report", r.series[detachBare])
	p.row("detach, bare move back, grace periods expedited", r.series[detachFast])
	p.row("detach, to the pool: call until it returns", r.series[detachWarm])
}

// parts prints what the guest tells of an attach by the floor.
func (p *printer) parts(series map[string][]float64, name string) {
	p.row("  until the guest's report", series[name+reportPart])
	p.row("    of that: move, rename, up", series[name+movePart])
	p.row("    of that: addresses, routes", series[name+addressPart])
}

// head and row print a table.
func (p *printer) head(title string) {
	p.f("\n%-52s%8s%9s%9s%8s%6s\n", title, "median", "quart. 1", "quart. 3", "min", "n")
}

func (p *printer) row(title string, xs []float64) {
	s := stats.Summarize(xs)
	p.f("%-52s%8.1f%9.1f%9.1f%8.1f%6d\n", title, s.Median, s.Q1, s.Q3, s.Min, s.N)
}

// stepOrder is the order in which the daemon takes its steps; those that are not
// in it come before the others.
var stepOrder = []string{"lease", "prepare", "plug", "appear", "unpark", "move", "configure", "release", "retrieve", "park", "unplug", "total"}

// printSteps prints the daemon's own timings.
func (r report) printSteps(p *printer, what, series string) {
	p.head("of " + what + ", as brfused tells it")
	prefix := series + stepPart
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(r.series)), func(s string) bool { return !strings.HasPrefix(s, prefix) })
	rank := func(s string) int { return slices.Index(stepOrder, strings.TrimPrefix(s, prefix)) }
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, name := range names {
		p.row("  "+strings.TrimPrefix(name, prefix), r.series[name])
	}
}

func (r report) printBatches(p *printer) {
	if len(r.series[batchColdSerial]) == 0 {
		return
	}
	p.head(fmt.Sprintf("%d pods: the calls, until all have returned", batchSize))
	for _, b := range []struct{ title, series string }{
		{"cold, in turn", batchColdSerial},
		{"cold, at once", batchColdAtOnce},
		{"warm, in turn", batchWarmSerial},
		{"warm, at once", batchWarmAtOnce},
	} {
		p.row("attach, "+b.title, r.series[b.series])
		p.row("  each", r.series[b.series+eachPart])
		p.row("detach, "+b.title, r.series[b.series+detachPart])
		p.row("  each", r.series[b.series+detachEachPart])
	}
}

func (r report) printMemory(p *printer) {
	m := r.memory
	p.f("\nresident memory with %d attachments: brfused %.1f MiB (goal: under %d), brfuse-agent %.1f MiB (goal: under %d)\n",
		m.Attachments, float64(m.Daemon)/1024, daemonGoal>>10, float64(m.Agent)/1024, agentGoal>>10)
}
