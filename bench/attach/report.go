package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/stats"
)

// goal is the ratio to the floor that brfuse is to have.
const goal = 1.3

// report is what was found.
type report struct {
	env       vmlab.Environment
	loadAfter string
	series    map[string][]float64
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

// print prints the report and tells whether no ratio is above the limit. 0 is
// no limit.
func (r report) print(w io.Writer, limit float64) (met bool, err error) {
	p := &printer{w: w}
	r.printEnvironment(p)
	r.printSeries(p)
	r.printSteps(p, "attach", attachStep)
	r.printSteps(p, "detach", detachStep)
	attach := r.printRatio(p, "\nattach", attachFused, attachFloor)
	detach := r.printRatio(p, "detach", detachFused, detachFloorAll)
	r.printMemory(p)
	met = limit == 0 || attach <= limit && detach <= limit
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
routes. brfuse does all of its work within the call, and sets default routes too.
When its detach returns, nothing is left, on the host either.
`)
}

func (r report) printSeries(p *printer) {
	p.head("milliseconds")
	p.row("attach, floor: device_add until the pod answers", r.series[attachFloor])
	p.row("  until the guest's report", r.series[attachFloorReport])
	p.row("    of that: move, rename, up", r.series[attachFloorMove])
	p.row("    of that: addresses", r.series[attachFloorAddr])
	p.row("attach, brfuse: call until the pod answers", r.series[attachFused])
	p.row("  until the call returns", r.series[attachFusedReturn])
	p.row("detach, floor: device_del until the NIC is gone", r.series[detachFloor])
	p.row("  until the backend and the tap are gone too", r.series[detachFloorAll])
	p.row("detach, brfuse: call until it returns", r.series[detachFused])
}

// head and row print a table.
func (p *printer) head(title string) {
	p.f("\n%-48s%8s%8s%8s%8s%6s\n", title, "median", "p10", "p90", "min", "n")
}

func (p *printer) row(title string, samples []float64) {
	s := stats.Summarize(samples)
	p.f("%-48s%8.1f%8.1f%8.1f%8.1f%6d\n", title, s.Median, s.P10, s.P90, s.Min, s.N)
}

// stepOrder is the order in which the daemon takes its steps.
var stepOrder = []string{"lease", "prepare", "plug", "appear", "move", "configure", "release", "unplug", "total"}

// printSteps prints the daemon's own timings.
func (r report) printSteps(p *printer, op, prefix string) {
	p.head("of that, " + op + " as brfused tells it")
	names := slices.Collect(maps.Keys(r.series))
	names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, prefix) })
	rank := func(s string) int { return slices.Index(stepOrder, strings.TrimPrefix(s, prefix)) }
	slices.SortFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, name := range names {
		p.row("  "+strings.TrimPrefix(name, prefix), r.series[name])
	}
}

// printRatio prints and returns the ratio of brfuse to the floor.
func (r report) printRatio(p *printer, op, b, a string) float64 {
	q := stats.RatioOfMedians(r.series[b], r.series[a])
	verdict := "met"
	if q.Value > goal {
		verdict = "not met"
	}
	p.f("%s: %.2f times the floor (ratio of medians; within this run, 95 %% confidence interval %.2f to %.2f); goal %g or less: %s\n",
		op, q.Value, q.Low, q.High, goal, verdict)
	return q.Value
}

func (r report) printMemory(p *printer) {
	m := r.memory
	p.f("\nresident memory with %d attachments: brfused %.1f MiB (goal: under %d), brfuse-agent %.1f MiB (goal: under %d)\n",
		m.Attachments, float64(m.Daemon)/1024, daemonGoal>>10, float64(m.Agent)/1024, agentGoal>>10)
}
