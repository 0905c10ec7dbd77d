package orchestrator

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestQueuePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler))
		defer q.close()
		start := time.Now()
		var at []time.Duration
		fn := func(context.Context) error {
			at = append(at, time.Since(start))
			if len(at) < 5 {
				return errors.New("not yet")
			}
			return nil
		}
		q.add("x", fn)
		q.keep("x", fn)
		time.Sleep(time.Minute) //nolint:forbidigo // a fake minute
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, 200 * time.Millisecond, 600 * time.Millisecond, 1400 * time.Millisecond, 3 * time.Second}, at)
	})
}

func TestQueueAddEndsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler))
		defer q.close()
		runs := 0
		fn := func(context.Context) error { runs++; return errors.New("no") }
		q.add("x", fn)
		synctest.Wait()
		q.add("x", fn)
		synctest.Wait()
		assert.Equal(t, 2, runs)
		q.keep("x", fn)
		synctest.Wait()
		assert.Equal(t, 2, runs)
	})
}

func TestQueueAddWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler))
		runs := 0
		goOn := make(chan struct{})
		fn := func(context.Context) error { runs++; <-goOn; return nil }
		q.add("x", fn)
		synctest.Wait()
		q.add("x", fn)
		q.add("x", fn)
		close(goOn)
		synctest.Wait()
		assert.Equal(t, 2, runs, "once more, not twice")
		q.close()
		q.add("x", fn)
		synctest.Wait()
		assert.Equal(t, 2, runs)
	})
}

func TestQueueCloseStopsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler))
		q.add("hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		q.add("pauses", func(context.Context) error { return errors.New("no") })
		synctest.Wait()
		q.close()
	})
}
