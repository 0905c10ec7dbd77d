package main

import (
	"fmt"
	"io"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/stats"
)

// goal is the ratio to bridge and portmap that brfuse's ADD and DEL are to have.
const goal = 0.3

// report is what was found.
type report struct {
	env       vmlab.Environment
	loadAfter string
	series    map[string][]float64
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
	r.printCalls(p)
	r.printParts(p, plan.Add, "lease", "prepare", "plug", "appear", "move", "configure")
	r.printParts(p, plan.Del, "release", "unplug")
	r.printDocker(p)
	p.f("\n")
	add := r.printRatio(p, plan.Add+"/", nested, goal)
	del := r.printRatio(p, plan.Del+"/", nested, goal)
	r.printRatio(p, plan.Add+"/", moved, 0)
	r.printRatio(p, plan.Del+"/", moved, 0)
	if len(r.series[dockerRun+fused]) > 0 {
		r.printRatio(p, dockerRun, nestedOwn, 0)
		r.printRatio(p, dockerRun, nested, 0)
	}
	met = limit == 0 || add <= limit && del <= limit
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
Each CNI time is that of one call of libcni in the guest, all plugins of the
list with it, which are started anew. All give one IPv4 address and a default
route. "bridge" is bridge with isGateway and ipMasq, host-local, and portmap,
without a published port; "host-device" has host-local, and a virtio NIC that is
there from the start. brfuse plugs its NIC within ADD and unplugs it within DEL.
VERSION is what starting the list's first plugin takes, which does nothing else.
Docker gives a container on a network that a user made, as brfuse's are, its name
server, which is a part of what it costs.
`)
}

func (r report) printCalls(p *printer) {
	p.head("milliseconds")
	for _, verb := range []string{plan.Add, plan.Del, plan.Start} {
		for _, kind := range []string{nested, moved, fused} {
			p.row(verb+", "+kind, r.series[verb+"/"+kind])
		}
	}
}

// printParts prints where the time of brfuse's calls goes. What the daemon does
// beside its steps is its store's.
func (r report) printParts(p *printer, verb string, steps ...string) {
	series := verb + "/" + fused
	p.head("of " + verb + ", brfuse")
	p.row("  plugin: start, libcni, socket, result", r.series[series+"/"+partPlugin])
	p.row("    starting it, as VERSION does", r.series[plan.Start+"/"+fused])
	p.row("  agent and channel to the host", r.series[series+"/"+partChannel])
	p.row("  brfused", r.series[series+"/"+partTotal])
	for _, s := range steps {
		if xs := r.series[series+"/"+s]; len(xs) > 0 {
			p.row("    "+s, xs)
		}
	}
}

func (r report) printDocker(p *printer) {
	if len(r.series[dockerRun+fused]) == 0 {
		return
	}
	p.head("docker run --rm ... true, the whole command")
	p.row("bridge, the one that is always there", r.series[dockerRun+nested])
	p.row("bridge, made by the user", r.series[dockerRun+nestedOwn])
	p.row("brfuse", r.series[dockerRun+fused])
}

// head and row print a table.
func (p *printer) head(title string) {
	p.f("\n%-42s%9s%9s%9s%9s%5s\n", title, "median", "quart. 1", "quart. 3", "min", "n")
}

func (p *printer) row(title string, samples []float64) {
	s := stats.Summarize(samples)
	p.f("%-42s%9.1f%9.1f%9.1f%9.1f%5d\n", title, s.Median, s.Q1, s.Q3, s.Min, s.N)
}

// printRatio prints and returns the ratio of brfuse to another kind. A goal of 0
// is none.
func (r report) printRatio(p *printer, prefix, to string, goal float64) float64 {
	q := stats.RatioOfMedians(r.series[prefix+fused], r.series[prefix+to])
	verdict := ""
	switch {
	case goal > 0 && q.Value <= goal:
		verdict = fmt.Sprintf("; goal %g or less: met", goal)
	case goal > 0:
		verdict = fmt.Sprintf("; goal %g or less: not met", goal)
	}
	p.f("%s: %.2f times %s (ratio of medians; within this run, 95 %% confidence interval %.2f to %.2f)%s\n",
		prefix[:len(prefix)-1], q.Value, to, q.Low, q.High, verdict)
	return q.Value
}
