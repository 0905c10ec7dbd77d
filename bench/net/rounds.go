package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/bench/internal/macro"
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/internal/rig"
	"github.com/brfuse/brfuse/integration/vmlab"
)

const (
	bootLimit = 3 * time.Minute
	// slack is added to what is measured: a busy machine is several times slower.
	slack     = time.Minute
	downLimit = 30 * time.Second
)

// measure has all rounds of one rig.
func measure(ctx context.Context, o options, p plan, out *result.Writer, pace *pace) (err error) {
	r, err := newRig(ctx, o, p, pace)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	env, err := r.Environment(ctx)
	if err != nil {
		return err
	}
	env.Command = o.command
	if p.foreign() {
		env.Programs = programs(ctx)
	}
	if err := out.Environment(env); err != nil {
		return err
	}
	pace.Did(p.boot())
	for round := range p.rounds + 1 {
		for i := range p.topologies {
			topology := p.topologies[(round+i)%len(p.topologies)]
			pace.Say("rig %s, round %d of %d: %s", p.rig, round, p.rounds, topology)
			if err := visit(ctx, r, p, topology, round, out, pace); err != nil {
				return fmt.Errorf("round %d: %s: %w", round, topology, err)
			}
			pace.Did(p.visit(round))
		}
	}
	return nil
}

// newRig boots the guests.
func newRig(ctx context.Context, o options, p plan, pace *pace) (*rig.Rig, error) {
	scratch, err := vmlab.NewScratch("brfuse-bench-image")
	if err != nil {
		return nil, err
	}
	defer scratch.Remove() //nolint:errcheck // what is left, the next run removes
	var img vmlab.Image
	if p.foreign() {
		if img, err = macro.Image(scratch.Dir); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("the rig wasn't there after %s", bootLimit))
	defer cancel()
	return rig.New(ctx, rig.Options{Pair: p.pair(), CPUs: o.cpus, Spread: true, Image: img, Progress: func(what string) { pace.Say("%s", what) }})
}

// visit has all workloads of a round in one topology.
func visit(ctx context.Context, r *rig.Rig, p plan, topology string, round int, out *result.Writer, pace *pace) (err error) {
	limit := 4*p.visit(round) + slack
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	b, err := open(ctx, r, topology)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		err = errors.Join(err, b.close(ctx))
	}()
	for _, w := range p.workloads {
		if !w.in(round) {
			continue
		}
		s, err := b.try(ctx, w, pace)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		s.Rig, s.Topology, s.Workload, s.Round = p.rig, topology, w.name, round
		if err := out.Sample(s); err != nil {
			return err
		}
	}
	return nil
}
