package netcost

import (
	"context"
	"encoding/json"
	"time"
)

// observeTimeout bounds a snapshot of an observer, which nobody can cancel.
const observeTimeout = 10 * time.Second

// Observer returns a function that begins to count when it is called, and what that
// returns ends it: with a [Cost] as JSON, or {"error": "…"} when counters can't be
// read. What the counting itself takes is outside of the window, but for the reading
// of /proc/stat. It fits netload.Observer. It is safe for concurrent use.
func Observer(o Options) func() (stop func() json.RawMessage) {
	return func() func() json.RawMessage {
		first, firstErr := observe(o, false)
		return func() json.RawMessage {
			if firstErr != nil {
				return failed(firstErr)
			}
			last, err := observe(o, true)
			if err != nil {
				return failed(err)
			}
			b, err := json.Marshal(last.Since(first))
			if err != nil {
				return failed(err)
			}
			return b
		}
	}
}

func observe(o Options, closing bool) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), observeTimeout)
	defer cancel()
	return take(ctx, o, closing)
}

// failed returns an error as JSON.
func failed(err error) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"error": err.Error()}) // strings always marshal
	return b
}
