package orchestratortest

import (
	"context"
	"errors"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// ErrCrashed is what every call of a crashed [Conn] returns.
var ErrCrashed = errors.New("the daemon has crashed")

// A Conn is the view of the world that one daemon has: it implements the
// interfaces Host, Guest and VMs of package orchestrator. It can be crashed, and
// has no effect from then on; the world stays. Make it with [World.Conn].
type Conn struct {
	w *World

	mu      sync.Mutex
	vms     map[string]bool  // guarded by mu; those that were added
	notify  func(vnic.Event) // guarded by mu
	pending []vnic.Event     // guarded by mu; while notify isn't set
	crashAt string           // guarded by mu; "before CALL" or "after CALL"
	skip    int              // guarded by mu; how often crashAt passes
	crashed chan struct{}    // closed by the crash
}

// Conn connects a daemon to the world.
func (w *World) Conn() *Conn {
	c := &Conn{w: w, vms: map[string]bool{}, crashed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	return c
}

// Notify has events of the VMs that were added sent to fn, those before now
// first. fn must not block.
func (c *Conn) Notify(fn func(vnic.Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify = fn
	for _, ev := range c.pending {
		fn(ev)
	}
	c.pending = nil
}

func (c *Conn) emit(ev vnic.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.vms[ev.VM] || c.deadLocked():
	case c.notify == nil:
		c.pending = append(c.pending, ev)
	default:
		c.notify(ev)
	}
}

// CrashAt crashes the connection right at "before CALL" or "after CALL", with a
// call as in [World.Before] or "update", a commit of a store by [Conn.Store];
// the first skip times it passes.
func (c *Conn) CrashAt(where string, skip int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashAt, c.skip = where, skip
}

// Crash crashes the connection now.
func (c *Conn) Crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashLocked()
}

// Crashed reports whether it has crashed.
func (c *Conn) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadLocked()
}

func (c *Conn) crashLocked() {
	if !c.deadLocked() {
		close(c.crashed)
	}
}

func (c *Conn) deadLocked() bool {
	select {
	case <-c.crashed:
		return true
	default:
		return false
	}
}

// reach returns ErrCrashed when the connection has crashed, or does so here.
func (c *Conn) reach(where string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashAt == where {
		if c.skip--; c.skip < 0 {
			c.crashLocked()
		}
	}
	if c.deadLocked() {
		return ErrCrashed
	}
	return nil
}

// call runs effect under the world's lock, between hooks and crashes.
func (c *Conn) call(ctx context.Context, name string, effect func() error) error {
	if err := c.enter(ctx, name); err != nil {
		return err
	}
	c.w.mu.Lock()
	err := effect()
	hook := c.w.hooks["after "+name]
	c.w.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.reach("after " + name); err != nil {
		return err
	}
	if hook != nil {
		return hook(ctx)
	}
	return nil
}

func (c *Conn) enter(ctx context.Context, name string) error {
	if err := c.reach("before " + name); err != nil {
		return err
	}
	c.w.mu.Lock()
	c.w.calls[name]++
	hook := c.w.hooks["before "+name]
	c.w.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *Conn) knows(vm string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vms[vm]
}
