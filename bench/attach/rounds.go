package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"
)

// Names of series. Those of the daemon's steps are attachStep and detachStep
// with the step's name behind it.
const (
	attachFloor       = "attach/floor"
	attachFloorReport = "attach/floor/report"
	attachFloorMove   = "attach/floor/move"
	attachFloorAddr   = "attach/floor/address"
	attachFused       = "attach/brfuse"
	attachFusedReturn = "attach/brfuse/return"
	attachStep        = "attach/brfuse/step/"
	detachFloor       = "detach/floor"
	detachFloorAll    = "detach/floor/all"
	detachFused       = "detach/brfuse"
	detachStep        = "detach/brfuse/step/"
)

// rest is the time between two measurements, for what is still going on in the
// guest after the one before.
const rest = 100 * time.Millisecond

// rounds measures both in each round, and another one first each time.
func (r *rig) rounds(ctx context.Context, n int, rec *recorder, progress io.Writer) error {
	for i := -warmUps; i < n; i++ {
		rec.begin(i)
		both := []func(context.Context, *recorder) error{r.measureFloor, r.measureFused}
		if i%2 != 0 {
			both[0], both[1] = both[1], both[0]
		}
		for _, measure := range both {
			if err := measure(ctx, rec); err != nil {
				return fmt.Errorf("round %d: %w", i+1, err)
			}
		}
		if (i+1)%10 == 0 && i > 0 {
			fmt.Fprintf(progress, "%d of %d rounds\n", i+1, n)
		}
	}
	return nil
}

// measureFloor attaches and detaches by the least that does it. The agent is
// stopped meanwhile: it follows the guest's links, and would slow down the floor.
func (r *rig) measureFloor(ctx context.Context, rec *recorder) (err error) {
	if err := r.agent.Signal(ctx, syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() {
		if ctx.Err() == nil { // else the guest is about to go
			err = errors.Join(err, r.agent.Signal(ctx, syscall.SIGCONT))
		}
	}()
	if err := pause(ctx); err != nil {
		return err
	}
	if err := r.floor.Prepare(ctx); err != nil {
		return err
	}
	start := time.Now()
	addr, t, err := r.floor.Attach(ctx)
	rec.add(attachFloorReport, time.Since(start))
	if err == nil {
		err = r.answer(ctx, rec, attachFloor, start, addr)
	}
	if err != nil {
		return fmt.Errorf("attach by the floor: %w", err)
	}
	rec.add(attachFloorMove, t.Move)
	rec.add(attachFloorAddr, t.Address)
	if err := pause(ctx); err != nil {
		return err
	}
	device, all, err := r.floor.Detach(ctx)
	if err != nil {
		return fmt.Errorf("detach by the floor: %w", err)
	}
	rec.add(detachFloor, device)
	rec.add(detachFloorAll, all)
	return nil
}

// measureFused attaches and detaches by brfuse.
func (r *rig) measureFused(ctx context.Context, rec *recorder) error {
	if err := pause(ctx); err != nil {
		return err
	}
	start := time.Now()
	a, err := r.fused.Attach(ctx, fusedPod)
	rec.add(attachFusedReturn, time.Since(start))
	if err == nil {
		err = r.answer(ctx, rec, attachFused, start, a.Addr)
	}
	if err != nil {
		return err
	}
	for _, s := range a.Steps {
		rec.add(attachStep+s.Name, s.Took)
	}
	if err := pause(ctx); err != nil {
		return err
	}
	took, steps, err := r.fused.Detach(ctx, fusedPod)
	if err != nil {
		return err
	}
	rec.add(detachFused, took)
	for _, s := range steps {
		rec.add(detachStep+s.Name, s.Took)
	}
	return nil
}

// answer records how long it was from start until a pod answered. It is the end
// of an attach, however it was made.
func (r *rig) answer(ctx context.Context, rec *recorder, series string, start time.Time, pod netip.Addr) error {
	at, err := r.ping.First(ctx, pod)
	if err == nil {
		rec.add(series, at.Sub(start))
	}
	return err
}

func pause(ctx context.Context) error {
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
