package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/internal/samples"
)

// Names of series. What is behind them tells of a part of it, in the daemon's
// words behind stepPart.
const (
	attachFloor = "attach/floor"
	attachBare  = "attach/bare"
	attachFast  = "attach/bare-expedited"
	attachCold  = "attach/cold"
	attachWarm  = "attach/warm"
	detachFloor = "detach/floor"
	detachBare  = "detach/bare"
	detachFast  = "detach/bare-expedited"
	detachCold  = "detach/cold"
	detachWarm  = "detach/warm"

	devicePart  = "/device" // of the floor's detach: until the NIC is gone
	reportPart  = "/report" // until the guest's report
	movePart    = "/move"
	addressPart = "/address"
	returnPart  = "/return" // until the call returns
	stepPart    = "/step/"
)

// rest is the time between two measurements, for what is still going on in the
// guest after the one before.
const rest = 100 * time.Millisecond

// measurement adds some samples of one round.
type measurement func(context.Context, *samples.Recorder) error

// rounds measures one attach and detach of each kind in each round, and another
// kind first each time. Meanwhile there is one vNIC in the pool.
func (r *rig) rounds(ctx context.Context, n int, rec *samples.Recorder, progress io.Writer) error {
	if err := r.warm.FillPool(ctx, 1); err != nil {
		return err
	}
	all := []measurement{r.measureFloor, r.measureCold, r.measureBare, r.measureFast, r.measureWarm}
	if err := rotate(ctx, "round", n, warmUps, all, rec, progress); err != nil {
		return err
	}
	return r.warm.CheckPool(ctx, 1)
}

// rotate takes all measurements in each of n rounds, after some to warm up.
func rotate(ctx context.Context, what string, n, warmUps int, all []measurement, rec *samples.Recorder, progress io.Writer) error {
	for i := 1 - warmUps; i <= n; i++ {
		rec.Begin(i)
		for j := range all {
			if err := all[(i+warmUps+j)%len(all)](ctx, rec); err != nil {
				return fmt.Errorf("%s %d: %w", what, i, err)
			}
		}
		if i > 0 && i%10 == 0 {
			fmt.Fprintf(progress, "%d of %d %ss\n", i, n, what)
		}
	}
	return nil
}

// alone does something while the agent is stopped: it follows the guest's links,
// and would slow down the floor.
func (r *rig) alone(ctx context.Context, rec *samples.Recorder, do measurement) (err error) {
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
	return do(ctx, rec)
}

// measureFloor plugs and unplugs by the least that does it.
func (r *rig) measureFloor(ctx context.Context, rec *samples.Recorder) error {
	return r.alone(ctx, rec, func(ctx context.Context, rec *samples.Recorder) error {
		if err := r.floor.Prepare(ctx); err != nil {
			return err
		}
		start := time.Now()
		addr, t, err := r.floor.Attach(ctx)
		rec.Add(attachFloor+reportPart, time.Since(start))
		if err == nil {
			err = r.answer(ctx, rec, attachFloor, start, addr)
		}
		if err != nil {
			return fmt.Errorf("attach by the floor: %w", err)
		}
		rec.Add(attachFloor+movePart, t.Move)
		rec.Add(attachFloor+addressPart, t.Address)
		if err := pause(ctx); err != nil {
			return err
		}
		device, all, err := r.floor.Detach(ctx)
		if err != nil {
			return fmt.Errorf("detach by the floor: %w", err)
		}
		rec.Add(detachFloor+devicePart, device)
		rec.Add(detachFloor, all)
		return nil
	})
}

// measureBare moves a NIC that waits, and moves it back, by the least that does it.
func (r *rig) measureBare(ctx context.Context, rec *samples.Recorder) error {
	return r.measureMove(ctx, rec, attachBare, detachBare)
}

// measureFast is measureBare with the kernel's grace periods expedited, as brfuse has
// them while it moves a vNIC: to tell what that is worth.
func (r *rig) measureFast(ctx context.Context, rec *samples.Recorder) (err error) {
	if err := r.expedite(ctx, "1"); err != nil {
		return err
	}
	defer func() {
		if ctx.Err() == nil { // else the guest is about to go
			err = errors.Join(err, r.expedite(ctx, "0"))
		}
	}()
	return r.measureMove(ctx, rec, attachFast, detachFast)
}

func (r *rig) expedite(ctx context.Context, value string) error {
	return r.vm.Put(ctx, "/sys/kernel/rcu_expedited", []byte(value), 0o644)
}

func (r *rig) measureMove(ctx context.Context, rec *samples.Recorder, attach, detach string) error {
	return r.alone(ctx, rec, func(ctx context.Context, rec *samples.Recorder) error {
		if err := r.floor.PrepareMove(ctx); err != nil {
			return err
		}
		start := time.Now()
		addr, t, err := r.floor.Move(ctx)
		rec.Add(attach+reportPart, time.Since(start))
		if err == nil {
			err = r.answer(ctx, rec, attach, start, addr)
		}
		if err != nil {
			return fmt.Errorf("bare move: %w", err)
		}
		rec.Add(attach+movePart, t.Move)
		rec.Add(attach+addressPart, t.Address)
		if err := pause(ctx); err != nil {
			return err
		}
		took, err := r.floor.MoveBack(ctx)
		if err != nil {
			return fmt.Errorf("bare move: %w", err)
		}
		rec.Add(detach, took)
		return nil
	})
}

func (r *rig) measureCold(ctx context.Context, rec *samples.Recorder) error {
	return r.measureFused(ctx, rec, r.cold, attachCold, detachCold)
}

func (r *rig) measureWarm(ctx context.Context, rec *samples.Recorder) error {
	return r.measureFused(ctx, rec, r.warm, attachWarm, detachWarm)
}

// measureFused attaches and detaches by brfuse.
func (r *rig) measureFused(ctx context.Context, rec *samples.Recorder, f *fused.Fused, attach, detach string) error {
	if err := pause(ctx); err != nil {
		return err
	}
	start := time.Now()
	a, err := f.Attach(ctx, fusedPod)
	rec.Add(attach+returnPart, time.Since(start))
	if err == nil {
		err = r.answer(ctx, rec, attach, start, a.Addr)
	}
	if err != nil {
		return err
	}
	for _, s := range a.Steps {
		rec.Add(attach+stepPart+s.Name, s.Took)
	}
	if err := pause(ctx); err != nil {
		return err
	}
	took, steps, err := f.Detach(ctx, fusedPod)
	if err != nil {
		return err
	}
	rec.Add(detach, took)
	for _, s := range steps {
		rec.Add(detach+stepPart+s.Name, s.Took)
	}
	return nil
}

// answer records how long it was from start until a pod answered. It is the end
// of an attach, however it was made.
func (r *rig) answer(ctx context.Context, rec *samples.Recorder, series string, start time.Time, pod netip.Addr) error {
	at, err := r.ping.First(ctx, pod)
	if err == nil {
		rec.Add(series, at.Sub(start))
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
