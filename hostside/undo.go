package hostside

import (
	"context"
	"log/slog"
	"slices"
)

// undo is how to take back the steps that were done, in their order.
type undo struct {
	log   *slog.Logger
	steps []undoStep
}

type undoStep struct {
	what string
	do   func(context.Context) error
}

func (u *undo) add(what string, do func(context.Context) error) {
	u.steps = append(u.steps, undoStep{what, do})
}

// run takes the steps back, the last one first, even when ctx has ended. A step
// that fails is logged; an Unplug later on repeats it.
func (u *undo) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	for _, s := range slices.Backward(u.steps) {
		if err := s.do(ctx); err != nil {
			u.log.Warn("undo plug", "step", s.what, "error", err)
		}
	}
}
