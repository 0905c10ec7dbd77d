package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// report returns report.md.
func report(set *result.Set, plots []string) string {
	var p page
	p.f("# Network benchmarks: the report of a run\n\nMade by `go run ./bench/report` from the samples; nothing is typed by hand.\n")
	environments(&p, set)
	method(&p, set)
	p.heading("Goals")
	findings(&p, set.Goals(), false)
	p.heading("Beside the published figures")
	p.WriteString(published(set))
	figures(&p, set)
	latencies(&p, set)
	layers(&p, set)
	cpu(&p, set)
	interrupts(&p, set)
	drops(&p, set)
	p.heading("Cross-checks")
	findings(&p, set.Checks(), true)
	if len(plots) > 0 {
		p.heading("Plots")
	}
	for _, plot := range plots {
		name := filepath.Base(plot)
		p.f("![%s](%s)\n\n", strings.TrimSuffix(name, ".svg"), name)
	}
	return p.String()
}

func environments(p *page, set *result.Set) {
	p.heading("Environment")
	if len(set.Environments) == 0 {
		p.f("The files don't tell.\n")
	}
	for _, e := range set.Environments {
		title := "All rigs"
		if e.Rig != "" {
			title = "Rig " + e.Rig
		}
		var rows [][]string
		add := func(name, value string) {
			if value != "" {
				rows = append(rows, []string{name, value})
			}
		}
		add("command", e.Command)
		if !e.Time.IsZero() {
			add("begun", e.Time.UTC().Format(time.RFC3339))
		}
		add("brfuse", strings.TrimSpace(e.Brfuse+" "+e.Go))
		add("hypervisor", fmt.Sprintf("Linux %s, %d CPUs %s, load %s", e.Kernel, e.CPUs, e.CPU, e.Load))
		add("QEMU", fmt.Sprintf("%s, accelerator %s, vhost %t", e.QEMU, e.Accel, e.Vhost))
		add("guest", fmt.Sprintf("Linux %s %s, %d virtual CPUs", e.GuestKernel, e.Arch, e.GuestCPUs))
		add("threads", e.Pinned)
		for _, dev := range slices.Sorted(maps.Keys(e.Offloads)) {
			add("offloads of "+dev, e.Offloads[dev])
		}
		for _, name := range slices.Sorted(maps.Keys(e.Programs)) {
			add(name, e.Programs[name])
		}
		p.text([]string{title, ""}, rows)
	}
}

func method(p *page, set *result.Set) {
	p.heading("Method")
	p.f(`Topologies take turns, round by round, in one run of the same guests; rounds to warm up are left out. Figures are medians of the rounds.
A ratio is one of medians, with its 95 %% confidence interval in brackets: a bootstrap that draws rounds, so that what slows down a round
slows down both sides. Round trips are those of one connection. A stream's figure is what the receiver has got. Where a row says neither,
the pod sends. CPU figures are CPUs: 1 is one virtual CPU that was busy all the time; guests' figures are sums over the guests of the rig.

`)
	rows := [][]string{}
	for _, rig := range set.Rigs() {
		for _, t := range set.Topologies(rig, "") {
			low, high := 0, 0
			for _, w := range set.Workloads(rig, "") {
				n := set.Rounds(rig, t, w.Name)
				if n > 0 && (low == 0 || n < low) {
					low = n
				}
				high = max(high, n)
			}
			rounds := strconv.Itoa(low)
			if high > low {
				rounds += " to " + strconv.Itoa(high)
			}
			rows = append(rows, []string{rig, t, rounds})
		}
	}
	p.table([]string{"rig", "topology", "rounds by workload"}, rows)
}

// findings writes comparisons; those of the rig's other topologies that were not
// measured are left out, if they have no goal.
func findings(p *page, all []result.Finding, withCount bool) {
	var rows [][]string
	count := map[string]int{}
	for _, f := range all {
		verdict := strings.Replace(f.Told(), result.Missed, "**missed**", 1)
		count[f.Verdict()]++
		if f.Ratio.N == 0 && f.Goal() == "-" {
			continue
		}
		rows = append(rows, []string{f.Name, f.Of.Rig, f.Ratio.String(), f.Ratio.Interval(), f.Goal(), verdict})
	}
	p.table([]string{"ratio of medians", "rig", "ratio", "95 % interval", "goal", ""}, rows)
	if withCount {
		p.f("%d met, %d missed.\n", count[result.Met], count[result.Missed])
	}
}
