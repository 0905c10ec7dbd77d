package orchestrator

import (
	"context"
	"fmt"
	"sync"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/vnic"
)

// attachmentLocks are the locks of attachments. Those of a VM can be kept from
// everyone, for as long as the VM is migrated. The zero value is ready.
type attachmentLocks struct {
	keys keylock.Locks[vnic.Key]

	mu    sync.Mutex
	gates map[string]*gate // guarded by mu; of VMs that are closed or in use
}

// gate lets operations of one VM in.
type gate struct {
	inside int           // guarded by attachmentLocks.mu; operations, and those that wait for their key
	opened chan struct{} // closed when the gate opens; nil: it is open
	empty  chan struct{} // closed when the last operation leaves; nil: nobody waits for that
}

// Lock waits for the lock of k, and until the VM of k is open. The error is that of
// ctx, and tells what it waited for when that is a migration.
func (l *attachmentLocks) Lock(ctx context.Context, k vnic.Key) (unlock func(), err error) {
	if err := l.enter(ctx, k.VM); err != nil {
		return nil, err
	}
	free, err := l.keys.Lock(ctx, k)
	if err != nil {
		l.leave(k.VM)
		return nil, err
	}
	return func() { free(); l.leave(k.VM) }, nil
}

// TryLock is Lock for those who don't want to wait; ok tells whether it worked.
func (l *attachmentLocks) TryLock(k vnic.Key) (unlock func(), ok bool) {
	if l.tryEnter(k.VM) != nil {
		return nil, false
	}
	free, ok := l.keys.TryLock(k)
	if !ok {
		l.leave(k.VM)
		return nil, false
	}
	return func() { free(); l.leave(k.VM) }, true
}

func (l *attachmentLocks) enter(ctx context.Context, vm string) error {
	for {
		opened := l.tryEnter(vm)
		if opened == nil {
			return nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return fmt.Errorf("vm %s is being migrated: wait for the end of that: %w", vm, ctx.Err())
		}
	}
}

// tryEnter returns nil when it has entered, or what to wait for.
func (l *attachmentLocks) tryEnter(vm string) (opened <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gateLocked(vm)
	if g.opened != nil {
		return g.opened
	}
	g.inside++
	return nil
}

func (l *attachmentLocks) leave(vm string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gates[vm]
	if g.inside--; g.inside > 0 {
		return
	}
	if g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
	if g.opened == nil {
		delete(l.gates, vm)
	}
}

func (l *attachmentLocks) gateLocked(vm string) *gate {
	g := l.gates[vm]
	if g == nil {
		g = &gate{}
		if l.gates == nil {
			l.gates = map[string]*gate{}
		}
		l.gates[vm] = g
	}
	return g
}

// close lets no more operations of a VM in. One that is closed stays so.
func (l *attachmentLocks) close(vm string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.gateLocked(vm); g.opened == nil {
		g.opened = make(chan struct{})
	}
}

// drained waits until no operation of a closed VM runs.
func (l *attachmentLocks) drained(ctx context.Context, vm string) error {
	l.mu.Lock()
	g := l.gateLocked(vm)
	if g.inside == 0 {
		l.mu.Unlock()
		return nil
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	l.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the attaches and detaches under way: %w", ctx.Err())
	}
}

// open lets operations of a VM in again.
func (l *attachmentLocks) open(vm string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gates[vm]
	if g == nil || g.opened == nil {
		return
	}
	close(g.opened)
	g.opened = nil
	if g.inside == 0 {
		delete(l.gates, vm)
	}
}
