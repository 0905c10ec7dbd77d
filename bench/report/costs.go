package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// cpu writes who spent how much CPU.
func cpu(p *page, set *result.Set) {
	metrics := []string{
		result.GuestUser, result.GuestSystem, result.GuestSoftirq, result.GuestIRQ, result.GuestCPU,
		result.QEMUCPU, result.VCPUs, result.VhostCPU, result.HostSoftirq,
	}
	p.heading("CPU")
	p.f("CPUs that were busy, and what a message, or a KiB of a stream, took of the guest's CPU.\n\n")
	p.table(
		[]string{
			"workload", "rig", "topology", "guest user", "system", "softirq", "irq", "busy", "QEMU", "its vCPUs", "vhost", "host softirq",
			"guest, ns", "to native",
		},
		costRows(set, metrics, func(of result.Ref, w result.Workload) []string {
			of.Metric = w.GuestTimeOf()
			return []string{median(set, of), ratioTo(set, of, native(of))}
		}),
	)
}

// interrupts writes how often the guest was interrupted.
func interrupts(p *page, set *result.Set) {
	metrics := []string{result.Interrupts, result.Softirqs, result.NetRx, result.NetTx}
	p.heading("Interrupts and softirqs of the guest, a second")
	p.table(
		[]string{"workload", "rig", "topology", "interrupts", "softirqs", "NET_RX", "NET_TX", "softirqs / interrupts", "interrupts, to native"},
		costRows(set, metrics, func(of result.Ref, _ result.Workload) []string {
			irq, soft := of, of
			irq.Metric, soft.Metric = result.Interrupts, result.Softirqs
			return []string{set.Ratio(soft, irq).String(), set.Ratio(irq, native(irq)).String()}
		}),
	)
}

// costRows returns the medians of metrics of each workload and topology that has
// the first of them, and what more adds to them.
func costRows(set *result.Set, metrics []string, more func(result.Ref, result.Workload) []string) [][]string {
	var rows [][]string
	for _, rig := range set.Rigs() {
		for _, w := range set.Workloads(rig, metrics[0]) {
			for _, t := range set.Topologies(rig, metrics[0]) {
				of := result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: metrics[0]}
				if set.Summary(of).N == 0 {
					continue
				}
				row := []string{w.Name, rig, t}
				for _, of.Metric = range metrics {
					row = append(row, median(set, of))
				}
				rows = append(rows, append(row, more(of, w)...))
			}
		}
	}
	return rows
}

// drops writes what was lost and where, in all rounds together.
func drops(p *page, set *result.Set) {
	p.heading("Loss, retransmits and drops")
	p.f("Medians of a round where there was any; a UDP stream is sent as fast as it can be, so it loses what the receiver can't take.\n\n")
	var rows [][]string
	for _, rig := range set.Rigs() {
		for _, w := range set.Workloads(rig, "") {
			for _, t := range set.Topologies(rig, "") {
				row, found := []string{w.Name, rig, t}, false
				for _, metric := range []string{result.Loss, result.Retransmits, result.Drops} {
					s := set.Summary(result.Ref{Rig: rig, Topology: t, Workload: w.Name, Metric: metric})
					found = found || s.Median > 0
					row = append(row, result.Significant(s.Median))
				}
				if found {
					rows = append(rows, row)
				}
			}
		}
	}
	p.table([]string{"workload", "rig", "topology", "loss, a fraction", "retransmits", "drops"}, rows)
	p.f("Drops by device, of all rounds together:\n\n")
	if rows := dropRows(set); len(rows) > 0 {
		p.table([]string{"workload", "rig", "topology", "device", "packets"}, rows)
		return
	}
	p.f("none.\n")
}

func dropRows(set *result.Set) [][]string {
	type at struct{ rig, workload, topology, device string }
	sums := map[at]uint64{}
	for _, m := range set.Samples {
		for device, n := range m.Drops {
			sums[at{m.Rig, m.Workload, m.Topology, device}] += n
		}
	}
	var rows [][]string
	for _, rig := range set.Rigs() {
		for _, w := range set.Workloads(rig, "") {
			for _, t := range set.Topologies(rig, "") {
				for _, k := range slices.SortedFunc(maps.Keys(sums), func(a, b at) int { return strings.Compare(a.device, b.device) }) {
					if k.rig == rig && k.workload == w.Name && k.topology == t && sums[k] > 0 {
						rows = append(rows, []string{w.Name, rig, t, k.device, strconv.FormatUint(sums[k], 10)})
					}
				}
			}
		}
	}
	return rows
}
