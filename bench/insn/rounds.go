package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// bed is where workloads are run: a rig and its counters.
type bed interface {
	// Up sets a topology up; nothing of another one is.
	Up(ctx context.Context, topology string) error
	Down(ctx context.Context) error
	// Run runs a workload in the topology that is up and returns its metrics.
	Run(ctx context.Context, workload string) (map[string]float64, error)
}

// plan says what is measured on one rig.
type plan struct {
	rig        string
	topologies []string
	workloads  []string
	budgets    []budget
	rounds     int                           // after one to warm up
	most       int                           // rounds of what still scatters or misses a budget after these
	limit      func(workload string) float64 // of the spread, a fraction
}

// measure runs the plan, and what scatters or misses a budget in more rounds, up to
// the most.
func (p plan) measure(ctx context.Context, b bed, out *result.Writer, progress io.Writer) error {
	todo := make(map[string][]string, len(p.topologies)) // workloads by topology
	var missed []key
	for _, t := range p.topologies {
		todo[t] = p.workloads
	}
	for round := range p.most + 1 {
		if round == p.rounds+1 {
			missed = p.missed(out.Set())
		}
		if round > p.rounds {
			if todo = again(append(p.wide(out.Set()), missed...)); len(todo) == 0 {
				return nil
			}
		}
		began := time.Now()
		if err := p.round(ctx, b, round, todo, out); err != nil {
			return fmt.Errorf("rig %s, round %d: %w", p.rig, round, err)
		}
		fmt.Fprintf(progress, "rig %s: round %d of %d to %d, topologies: %d, took %.0f s\n",
			p.rig, round, p.rounds, p.most, len(todo), time.Since(began).Seconds())
	}
	return nil
}

// again returns what has to be measured once more.
func again(keys []key) map[string][]string {
	todo := map[string][]string{}
	for _, k := range keys {
		if !slices.Contains(todo[k.topology], k.workload) {
			todo[k.topology] = append(todo[k.topology], k.workload)
		}
	}
	return todo
}

// missed returns both series of each budget that is missed. Few rounds may do so by
// chance: these series are measured up to the most, however they come out meanwhile.
func (p plan) missed(set *result.Set) []key {
	var keys []key
	for _, v := range judge(p.budgets, set) {
		if v.rig == p.rig && !v.met() {
			keys = append(keys, key{v.rig, v.of, v.workload}, key{v.rig, v.to, v.workload})
		}
	}
	return keys
}

// round measures each topology once, another one first each time.
func (p plan) round(ctx context.Context, b bed, round int, todo map[string][]string, out *result.Writer) error {
	n := len(p.topologies)
	for i := range n {
		t := p.topologies[(round+i)%n]
		if len(todo[t]) == 0 {
			continue
		}
		if err := b.Up(ctx, t); err != nil {
			return fmt.Errorf("set topology %s up: %w", t, err)
		}
		if err := p.run(ctx, b, t, round, todo[t], out); err != nil {
			return fmt.Errorf("topology %s: %w", t, err)
		}
		if err := b.Down(ctx); err != nil {
			return fmt.Errorf("take topology %s down: %w", t, err)
		}
	}
	return nil
}

// run runs workloads in the topology that is up.
func (p plan) run(ctx context.Context, b bed, topology string, round int, workloads []string, out *result.Writer) error {
	for _, w := range p.workloads {
		if !slices.Contains(workloads, w) {
			continue
		}
		metrics, err := b.Run(ctx, w)
		if err == nil {
			err = out.Sample(result.Sample{Rig: p.rig, Topology: topology, Workload: w, Round: round, Metrics: metrics})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}
