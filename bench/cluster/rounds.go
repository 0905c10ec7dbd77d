package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Series, each of one sample a round: the median and the 99th percentile of what one
// took, and the time of the round divided by how many there were.
const (
	attachSeries     = "attach"
	leaseSeries      = "attach/lease"
	detachSeries     = "detach"
	bareAttachSeries = "bare/attach"
	bareLeaseSeries  = "bare/attach/lease"
	bareDetachSeries = "bare/detach"
	p50Part          = "/p50"
	p99Part          = "/p99"
	eachPart         = "/each"
	maxBare          = 3000 // bare ones in a round, which are as many as others else
)

// insistTries is how often an attach or a detach is repeated.
const insistTries = 3

// cluster is what is measured.
type cluster struct {
	options
	fleet    fleet
	bare     *bare
	rec      *samples.Recorder
	progress io.Writer
	repeats  atomic.Int64 // of what etcd did not answer in time
}

// span returns the pods of a round, from 1 on: the first pod of each hypervisor is of
// round 0, which is to warm up.
func (o options) span(round int) (from, to int) {
	if round == 0 {
		return 0, 1
	}
	at := func(r int) int { return 1 + r*(o.pods-1)/o.rounds }
	return at(round - 1), at(round)
}

// attachAll attaches all pods.
func (c *cluster) attachAll(ctx context.Context) error {
	return c.inRounds(ctx, "attached", func(r int) error { return c.attachRound(ctx, r) }, func(r int) error {
		return c.bareRound(ctx, r, c.bare.attach, bareAttachSeries, bareLeaseSeries)
	})
}

// detachAll detaches all pods.
func (c *cluster) detachAll(ctx context.Context) error {
	return c.inRounds(ctx, "detached", func(r int) error { return c.detachRound(ctx, r) }, func(r int) error {
		return c.bareRound(ctx, r, c.bare.detach, bareDetachSeries, "")
	})
}

// inRounds runs two measurements in rounds of alternating order.
func (c *cluster) inRounds(ctx context.Context, what string, ours, bares func(round int) error) error {
	for r := range c.rounds + 1 {
		c.rec.Begin(r)
		order := []func(int) error{ours, bares}
		if r%2 == 1 {
			slices.Reverse(order)
		}
		start := time.Now()
		for _, measure := range order {
			if err := measure(r); err != nil {
				return err
			}
		}
		_, to := c.span(r)
		fmt.Fprintf(c.progress, "%s: %d of %d pods, load %s, %s\n", what, to*c.hypervisors, c.pods*c.hypervisors, load(), time.Since(start).Round(time.Second))
	}
	return context.Cause(ctx)
}

// each runs op for all pods of a round, one hypervisor after the other.
func (c *cluster) each(ctx context.Context, round int, op func(ctx context.Context, h *hypervisor, pod, i int) error) (time.Duration, int, error) {
	from, to := c.span(round)
	n := (to - from) * len(c.fleet)
	took, err := atOnce(ctx, c.concurrency, n, func(ctx context.Context, _, i int) error {
		return op(ctx, c.fleet[i%len(c.fleet)], from+i/len(c.fleet), i)
	})
	return took, n, err
}

func (c *cluster) attachRound(ctx context.Context, round int) error {
	from, to := c.span(round)
	whole := make([]time.Duration, (to-from)*len(c.fleet))
	leases := make([]time.Duration, len(whole))
	took, n, err := c.each(ctx, round, func(ctx context.Context, h *hypervisor, pod, i int) error {
		start := time.Now()
		var a vnic.Attachment
		err := c.insist(func() (err error) {
			a, err = h.attach(ctx, podName(pod))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		whole[i], h.pods[pod] = time.Since(start), a
		for _, t := range a.Timings {
			if t.Step == "lease" {
				leases[i] = t.Duration
			}
		}
		return nil
	})
	c.add(attachSeries, whole, took/time.Duration(n))
	c.add(leaseSeries, leases, 0)
	return err
}

func (c *cluster) detachRound(ctx context.Context, round int) error {
	from, to := c.span(round)
	whole := make([]time.Duration, (to-from)*len(c.fleet))
	took, n, err := c.each(ctx, round, func(ctx context.Context, h *hypervisor, pod, i int) error {
		start := time.Now()
		err := c.insist(func() error {
			_, err := h.orch.Detach(ctx, h.pods[pod].ID)
			return err
		})
		whole[i] = time.Since(start)
		return err
	})
	c.add(detachSeries, whole, took/time.Duration(n))
	return err
}

// insist runs what may be repeated, and repeats it while etcd doesn't answer in time: on a
// machine that has too much to do it may not, and the rest is measured all the same.
func (c *cluster) insist(op func() error) error {
	for range insistTries {
		err := op()
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnclear) {
			return err
		}
		c.repeats.Add(1)
	}
	return op()
}

// bareRound sends a round's bare transactions.
func (c *cluster) bareRound(ctx context.Context, round int, list []step, series, first string) error {
	from, to := c.span(round)
	n := min((to-from)*len(c.fleet), maxBare)
	whole, firsts := make([]time.Duration, n), make([]time.Duration, n)
	took, err := atOnce(ctx, c.concurrency, n, func(ctx context.Context, worker, i int) (err error) {
		start := time.Now()
		firsts[i], err = c.bare.run(ctx, worker, fmt.Sprintf("%d/%d", round, i), list)
		whole[i] = time.Since(start)
		return err
	})
	c.add(series, whole, took/time.Duration(n))
	if first != "" {
		c.add(first, firsts, 0)
	}
	return err
}

// add adds a round's samples to a series.
func (c *cluster) add(series string, took []time.Duration, each time.Duration) {
	slices.Sort(took)
	c.rec.Add(series+p50Part, at(took, 0.5))
	c.rec.Add(series+p99Part, at(took, 0.99))
	if each > 0 {
		c.rec.Add(series+eachPart, each)
	}
}

// at returns a quantile of sorted samples, the nearest (no interpolation).
func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}
