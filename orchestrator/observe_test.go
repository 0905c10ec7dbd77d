package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// diary is an observer that writes down what it is told.
type diary struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

type within struct{}

func (d *diary) write(ctx context.Context, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, _ := ctx.Value(within{}).(string)
	d.lines = append(d.lines, in+fmt.Sprintf(format, args...))
}

func (d *diary) Begin(ctx context.Context, op orchestrator.Operation) (context.Context, func(vnic.Attachment, error)) {
	d.write(ctx, "%s", op)
	return context.WithValue(ctx, within{}, "  "), func(a vnic.Attachment, err error) {
		d.write(ctx, "%s of %s: %s", op, a.Request.Key, orchestrator.Outcome(err))
	}
}

func (d *diary) Step(ctx context.Context, op orchestrator.Operation, name string) (context.Context, func([]vnic.Timing, error)) {
	return ctx, func(parts []vnic.Timing, err error) {
		d.write(ctx, "%s %s: %s", op, name, orchestrator.Outcome(err))
		for _, p := range parts {
			d.write(ctx, "  %s", p.Step)
		}
	}
}

// TestObserver: it is told of what was asked for, and its context is what the halves are
// called with; what is tried again in the background is not told.
func TestObserver(t *testing.T) {
	inRig(t, func(r *rig) {
		t, d := r.t, &diary{}
		r.cfg.Observers = []orchestrator.Observer{d}
		r.restart()
		require.NoError(t, r.orch.AddVM(t.Context(), vm("vm1")))
		seen := ""
		r.world.Before("plug", func(ctx context.Context) error {
			seen, _ = ctx.Value(within{}).(string)
			return nil
		})
		a := r.attach("web", "eth0")
		assert.Equal(t, "  ", seen)
		fails := true
		r.world.Before("unplug", func(context.Context) error {
			if fails {
				fails = false
				return vnic.ErrUnsupported
			}
			return nil
		})
		_, err := r.orch.Detach(t.Context(), a.ID)
		require.ErrorIs(t, err, vnic.ErrUnsupported)
		r.settleDown()
		r.nothingLeft()
		_, err = r.orch.DetachManaged(t.Context(), a.Request.Key)
		require.NoError(t, err)
		_, err = r.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm9", Pod: "web", Interface: "eth0"}, Network: "blue"})
		require.ErrorIs(t, err, vnic.ErrUnknownVM)
		assert.Equal(t, `attach
  attach lease: ok
  attach prepare: ok
  attach plug: ok
  attach move: ok
    appear
    move
  attach configure: ok
attach of vm1/web/eth0: ok
detach
  detach release: ok
  detach unplug: unsupported
detach of vm1/web/eth0: unsupported
detach
detach of vm1/web/eth0: ok
attach
  attach lease: unknown_vm
attach of vm9/web/eth0: unknown_vm`, strings.Join(d.lines, "\n"))
	})
}

func TestOutcome(t *testing.T) {
	cases := []struct {
		err  error
		want string
	}{
		{nil, "ok"},
		{fmt.Errorf("x: %w: %w", context.Canceled, vnic.ErrNoSlot), "no_slot"},
		{fmt.Errorf("x: %w: %w", store.ErrUnavailable, context.DeadlineExceeded), "store_unavailable"},
		{fmt.Errorf("x: %w", context.Canceled), "canceled"},
		{os.ErrClosed, "closed"},
		{errors.Join(fs.ErrPermission), orchestrator.OutcomeOther},
	}
	for _, c := range cases {
		assert.Equal(t, c.want, orchestrator.Outcome(c.err), "%v", c.err)
	}
}
