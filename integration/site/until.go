package site

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// untilStep is how often Until looks.
const untilStep = 20 * time.Millisecond

// Until waits for something that sends no event to this program. The error
// says what it waited for.
func Until(ctx context.Context, what string, there func(context.Context) (bool, error)) error {
	tick := time.NewTicker(untilStep)
	defer tick.Stop()
	var last error
	for {
		ok, err := there(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w (last error: %w)", what, ctx.Err(), errOrNone(last))
		}
	}
}

func errOrNone(err error) error {
	if err == nil {
		return errors.New("none")
	}
	return err
}
