package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/internal/samples"
)

// batchSize is how many pods are attached at once, or one after the other.
const batchSize = 16

// Series of batches: how long one took to attach all, to detach all, and each
// single call.
const (
	batchColdSerial = "batch/cold/serial"
	batchColdAtOnce = "batch/cold/concurrent"
	batchWarmSerial = "batch/warm/serial"
	batchWarmAtOnce = "batch/warm/concurrent"

	eachPart       = "/each"
	detachPart     = "/detach"
	detachEachPart = "/detach/each"
)

// batches measures in each round a batch of pods attached one after the other
// and one of pods attached at once, without and with a pool.
func (r *rig) batches(ctx context.Context, n int, rec *samples.Recorder, progress io.Writer) error {
	if err := r.warm.FillPool(ctx, batchSize); err != nil {
		return err
	}
	pods, err := r.addPods(ctx, "batch", batchSize)
	if err != nil {
		return err
	}
	batch := func(f *fused.Fused, series string, run func([]string, func(string) error) error) measurement {
		return func(ctx context.Context, rec *samples.Recorder) error {
			return r.measureBatch(ctx, rec, batchOf{f, series, pods, run})
		}
	}
	all := []measurement{
		batch(r.cold, batchColdSerial, inTurn), batch(r.cold, batchColdAtOnce, each),
		batch(r.warm, batchWarmSerial, inTurn), batch(r.warm, batchWarmAtOnce, each),
	}
	if err := rotate(ctx, "batch", n, 1, all, rec, progress); err != nil {
		return err
	}
	return r.warm.CheckPool(ctx, batchSize)
}

// addPods makes n pods in the guest.
func (r *rig) addPods(ctx context.Context, prefix string, n int) ([]string, error) {
	pods := make([]string, n)
	for i := range pods {
		pods[i] = fmt.Sprintf("%s%d", prefix, i)
		if _, err := r.vm.AddPod(ctx, pods[i]); err != nil {
			return nil, fmt.Errorf("add pod %s: %w", pods[i], err)
		}
	}
	return pods, nil
}

// batchOf says what to attach and how.
type batchOf struct {
	fused  *fused.Fused
	series string
	pods   []string
	run    func(pods []string, fn func(pod string) error) error
}

// measureBatch attaches all pods, sees whether all answer, and detaches them.
func (r *rig) measureBatch(ctx context.Context, rec *samples.Recorder, b batchOf) error {
	if err := pause(ctx); err != nil {
		return err
	}
	var mu sync.Mutex // guards addrs and rec
	var addrs []netip.Addr
	start := time.Now()
	err := b.run(b.pods, func(pod string) error {
		start := time.Now()
		a, err := b.fused.Attach(ctx, pod)
		took := time.Since(start)
		mu.Lock()
		defer mu.Unlock()
		addrs = append(addrs, a.Addr)
		rec.Add(b.series+eachPart, took)
		for _, s := range a.Steps {
			rec.Add(b.series+stepPart+s.Name, s.Took)
		}
		return err
	})
	if err != nil {
		return err
	}
	rec.Add(b.series, time.Since(start))
	for _, a := range addrs {
		if _, err := r.ping.First(ctx, a); err != nil {
			return err
		}
	}
	if err := pause(ctx); err != nil {
		return err
	}
	start = time.Now()
	err = b.run(b.pods, func(pod string) error {
		took, _, err := b.fused.Detach(ctx, pod)
		mu.Lock()
		defer mu.Unlock()
		rec.Add(b.series+detachEachPart, took)
		return err
	})
	rec.Add(b.series+detachPart, time.Since(start))
	return err
}

// each runs fn for all pods at once.
func each(pods []string, fn func(pod string) error) error {
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, pod := range pods {
		wg.Go(func() { errs[i] = fn(pod) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// inTurn runs fn for one pod after the other.
func inTurn(pods []string, fn func(pod string) error) error {
	for _, pod := range pods {
		if err := fn(pod); err != nil {
			return err
		}
	}
	return nil
}
