package main

import (
	"fmt"
	"io"

	"github.com/brfuse/brfuse/bench/internal/result"
)

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

// printReport prints the tables of each rig, what became of the budgets, and what
// scatters.
func printReport(w io.Writer, plans []plan, set *result.Set, verdicts []verdict) error {
	p := &printer{w: w}
	for _, pl := range plans {
		p.rig(pl, set)
	}
	p.f("\n%-6s%-20s%-24s%8s%9s\n", "rig", "workload", "ratio of medians", "ratio", "at most")
	for _, v := range verdicts {
		p.verdict(v)
	}
	for _, pl := range plans {
		for _, k := range pl.wide(set) {
			p.f("rig %s: %s in %s: its spread is %.1f %% after %d rounds, above %g %%\n",
				k.rig, k.workload, k.topology, 100*spread(set, k), summary(set, k).N, 100*pl.limit(k.workload))
		}
	}
	return p.err
}

func (p *printer) rig(pl plan, set *result.Set) {
	p.table(pl, "rig "+pl.rig+": instructions, medians", func(k key) string {
		return fmt.Sprintf("%.0f", summary(set, k).Median)
	})
	for _, to := range []string{result.Native, result.NAT} {
		p.table(pl, "ratio to "+to, func(k key) string {
			below := summary(set, key{k.rig, to, k.workload}).Median
			if below == 0 {
				return "-"
			}
			return fmt.Sprintf("%.3f", summary(set, k).Median/below)
		})
	}
	p.table(pl, "interquartile range, % of the median", func(k key) string { return fmt.Sprintf("%.2f", 100*spread(set, k)) })
	p.f("of the instructions of any run, an idle guest's were at most %.2f %%; they are counted in\n", 100*pl.idleShare(set))
}

// table prints a line for each workload and a column for each topology.
func (p *printer) table(pl plan, title string, cell func(key) string) {
	p.f("\n%-38s", title)
	for _, t := range pl.topologies {
		p.f("%15s", t)
	}
	for _, w := range pl.workloads {
		p.f("\n%-20s%-18s", w, unit(w))
		for _, t := range pl.topologies {
			p.f("%15s", cell(key{pl.rig, t, w}))
		}
	}
	p.f("\n")
}

func (p *printer) verdict(v verdict) {
	kind, what := "guard", "MET"
	if v.goal {
		kind = "goal"
	}
	if !v.met() {
		what = "MISSED"
	}
	p.f("%-6s%-20s%-24s%8.3f%9.2f  %s %s\n", v.rig, v.workload, v.of+" / "+v.to, v.ratio, v.most, kind, what)
}
