package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/internal/stats"
)

// Goals are the ratios to bridge and portmap that brfuse's ADD and DEL are to have.
const (
	goal     = 0.3
	warmGoal = 0.15
)

// comparisons are those of brfuse with what pods and containers have else.
func comparisons(docker bool) []samples.Comparison {
	const bridge, device = "bridge+masquerade+portmap", "host-device"
	all := []samples.Comparison{
		{Name: "cold ADD / " + bridge, Of: plan.Add + "/" + fused, To: plan.Add + "/" + nested, Goal: goal},
		{Name: "warm ADD / " + bridge, Of: plan.Add + "/" + pooled, To: plan.Add + "/" + nested, Goal: warmGoal},
		{Name: "cold DEL / " + bridge, Of: plan.Del + "/" + fused, To: plan.Del + "/" + nested, Goal: goal},
		{Name: "DEL to pool / " + bridge, Of: plan.Del + "/" + pooled, To: plan.Del + "/" + nested, Goal: warmGoal},
		{Name: "cold ADD / " + device, Of: plan.Add + "/" + fused, To: plan.Add + "/" + moved},
		{Name: "warm ADD / " + device, Of: plan.Add + "/" + pooled, To: plan.Add + "/" + moved},
		{Name: "cold DEL / " + device, Of: plan.Del + "/" + fused, To: plan.Del + "/" + moved},
		{Name: "DEL to pool / " + device, Of: plan.Del + "/" + pooled, To: plan.Del + "/" + moved},
	}
	if !docker {
		return all
	}
	return append(
		all,
		samples.Comparison{Name: "docker run / on a user's bridge", Of: dockerRun + fused, To: dockerRun + nestedOwn},
		samples.Comparison{Name: "docker run / on the bridge that is always there", Of: dockerRun + fused, To: dockerRun + nested},
	)
}

// report is what was found.
type report struct {
	env       vmlab.Environment
	loadAfter string
	series    map[string][]float64 // in milliseconds
	ratios    []samples.Ratio
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
	r.printCalls(p)
	for _, kind := range []string{fused, pooled} {
		r.printParts(p, plan.Add, kind, "lease", "prepare", "plug", "appear", "unpark", "move", "configure")
		r.printParts(p, plan.Del, kind, "release", "unplug", "retrieve", "park")
	}
	r.printDocker(p)
	p.f("\n")
	if p.err == nil {
		p.err = samples.Print(w, r.ratios)
	}
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
Each CNI time is that of one call of libcni in the guest, all plugins of the
list with it, which are started anew. All give one IPv4 address and a default
route. "bridge" is bridge with isGateway and ipMasq, host-local, and portmap,
without a published port; "host-device" has host-local, and a virtio NIC that is
there from the start. brfuse plugs its NIC within ADD and unplugs it within DEL;
brfuse-warm takes one from a pool, where DEL puts it back, like new.
VERSION is what starting the list's first plugin takes, which does nothing else.
Docker gives a container on a network that a user made, as brfuse's are, its name
server, which is a part of what it costs.
`)
}

func (r report) printCalls(p *printer) {
	p.head("milliseconds")
	for _, verb := range []string{plan.Add, plan.Del, plan.Start} {
		for _, kind := range []string{nested, moved, fused, pooled} {
			p.row(verb+", "+kind, r.series[verb+"/"+kind])
		}
	}
}

// printParts prints where the time of brfuse's calls goes. What the daemon does
// beside its steps is its store's.
func (r report) printParts(p *printer, verb, kind string, steps ...string) {
	series := verb + "/" + kind
	p.head("of " + verb + ", " + kind)
	p.row("  plugin: start, libcni, socket, result", r.series[series+"/"+partPlugin])
	p.row("    starting it, as VERSION does", r.series[plan.Start+"/"+kind])
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
