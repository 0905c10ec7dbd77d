package hostside

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// slotLimit bounds how long a plug waits for the slot of a device that is leaving:
// a guest that powers its slots itself takes over five seconds.
const slotLimit = 20 * time.Second

// leaving counts the devices of a VM that are being unplugged. The zero value is
// ready, and is safe for concurrent use.
type leaving struct {
	mu   sync.Mutex // guards what follows
	n    int
	left chan struct{} // closed when the next of them has left, or stays
}

// begin notes that a device is leaving; end that this is over.
func (l *leaving) begin() (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; l.left == nil {
		l.left = make(chan struct{})
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.left)
		if l.left = nil; l.n > 1 {
			l.left = make(chan struct{})
		}
		l.n--
	}
}

// next returns what is closed when the next device has left, or nil when none is
// leaving.
func (l *leaving) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// doInSlot is do for f that takes a slot. When all are taken it waits for those that
// are about to be free.
func (v *vm) doInSlot(ctx context.Context, f func(backend.VM) error) error {
	limit := time.NewTimer(slotLimit)
	defer limit.Stop()
	for {
		left := v.leaving.next() // before the attempt: one that leaves meanwhile counts
		err := v.do(ctx, f)
		if !errors.Is(err, vnic.ErrNoSlot) || left == nil {
			return err
		}
		select {
		case <-left:
		case <-limit.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// awaitNone waits until no device is leaving.
func (l *leaving) awaitNone(ctx context.Context) error {
	for left := l.next(); left != nil; left = l.next() {
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("wait for devices that are being unplugged: %w", ctx.Err())
		}
	}
	return nil
}
