package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// atOnce runs op for 0 to n-1, up to workers of them at a time, and returns how long
// all took, or the first error, which ends the rest.
func atOnce(ctx context.Context, workers, n int, op func(ctx context.Context, worker, i int) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range min(workers, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := op(ctx, w, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), context.Cause(ctx)
}
