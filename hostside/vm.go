package hostside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// Waits between attempts to reach a hypervisor process.
const (
	firstDial = 3 * time.Second // how long AddVM waits for the first one
	dialLimit = 10 * time.Second
	minRedial = 20 * time.Millisecond
	maxRedial = 2 * time.Second
)

// vm is a registered VM and the connection to its hypervisor process, which is
// made again whenever it is lost.
type vm struct {
	vnic.VM
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	leaving leaving

	mu      sync.Mutex // guards what follows
	backend backend.VM // nil while there is no connection
	err     error      // why there is none; nil while it isn't known
	changed chan struct{}
}

// set changes the state and wakes those who wait for that.
func (v *vm) set(b backend.VM, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.backend, v.err = b, err
	close(v.changed)
	v.changed = make(chan struct{})
}

// connection returns a connection other than stale, which may be nil. While it
// isn't known whether the process is there, because the connection was just
// lost, it waits for the next attempt. The error is [vnic.ErrVMGone] when the
// process is not there.
func (v *vm) connection(ctx context.Context, stale backend.VM) (backend.VM, error) {
	for {
		v.mu.Lock()
		b, err, changed := v.backend, v.err, v.changed
		v.mu.Unlock()
		switch {
		case b != nil && b != stale:
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("vm %s: %w", v.Name, err)
		}
		select {
		case <-changed:
		case <-v.done:
			return nil, fmt.Errorf("vm %s: %w", v.Name, vnic.ErrUnknownVM)
		case <-ctx.Done():
			return nil, fmt.Errorf("vm %s: await its hypervisor: %w", v.Name, ctx.Err())
		}
	}
}

// callTries bounds how often a call is repeated over a new connection.
const callTries = 3

// do calls f, which may be repeated, with a connection. When that is lost
// meanwhile, it does so again with the next: only when the process itself is
// not there is the error [vnic.ErrVMGone].
func (v *vm) do(ctx context.Context, f func(backend.VM) error) error {
	var stale backend.VM
	for range callTries {
		b, err := v.connection(ctx, stale)
		if err != nil {
			return err
		}
		if err = f(b); !errors.Is(err, vnic.ErrVMGone) {
			return err
		}
		stale = b
	}
	return fmt.Errorf("vm %s: its hypervisor ended %d connections, one after the other", v.Name, callTries)
}

// isGone tells that an attempt failed because no process listens, or because
// libvirt says that there is none: it ended. A connection that was made and then
// lost tells nothing: the next attempt does.
func isGone(err error) bool {
	return errors.Is(err, backend.ErrNotRunning) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// AddVM registers a VM and connects to its hypervisor process, again and again
// while it is not there. A VM that is down is no error: AddVM waits a few
// seconds for the first attempt, whatever it leads to. Repeating it is
// harmless; with other sockets it is a [vnic.ErrConflict].
func (h *Host) AddVM(ctx context.Context, def vnic.VM) error {
	if err := vnic.CheckVMName(def.Name); err != nil {
		return err
	}
	v, err := h.register(def) //nolint:contextcheck // the connection outlives the call
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, firstDial)
	defer cancel()
	if _, err := v.connection(wait, nil); err != nil {
		h.log.Debug("vm is not there yet", "vm", def.Name, "error", err)
	}
	return ctx.Err()
}

func (h *Host) register(def vnic.VM) (*vm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("add vm %s: host: %w", def.Name, fs.ErrClosed)
	}
	if v, ok := h.vms[def.Name]; ok {
		if v.QMP != def.QMP || v.Libvirt != def.Libvirt { // the channel and what the guest may do are others' business
			return nil, fmt.Errorf("add vm %s: it is registered with another qmp socket or libvirt domain: %w: remove it first", def.Name, vnic.ErrConflict)
		}
		return v, nil
	}
	life, cancel := context.WithCancel(h.life)
	v := &vm{VM: def, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	h.vms[def.Name] = v
	go h.keep(life, v)
	return v, nil
}

// RemoveVM forgets a VM. What is plugged stays. The error is
// [vnic.ErrUnknownVM] when it is not registered.
func (h *Host) RemoveVM(ctx context.Context, name string) error {
	h.mu.Lock()
	v, ok := h.vms[name]
	delete(h.vms, name)
	h.mu.Unlock()
	if !ok {
		return fmt.Errorf("remove vm %s: %w", name, vnic.ErrUnknownVM)
	}
	v.cancel()
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remove vm %s: await the end of its connection: %w", name, ctx.Err())
	}
}

func (h *Host) vm(name string) (*vm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.vms[name]
	if !ok {
		return nil, fmt.Errorf("vm %s: %w", name, vnic.ErrUnknownVM)
	}
	return v, nil
}

// keep holds the connection to a VM until ctx ends.
func (h *Host) keep(ctx context.Context, v *vm) {
	defer close(v.done)
	gone := false // that it is gone was told
	for pause := minRedial; ctx.Err() == nil; pause = min(2*pause, maxRedial) {
		b, err := h.connect(ctx, v)
		if err == nil {
			gone = false
			since := time.Now()
			h.log.Info("vm is up", "vm", v.Name)
			v.set(b, nil)
			h.events.Push(vnic.Event{Kind: vnic.EventVMUp, VM: v.Name})
			h.follow(ctx, v, b)
			if time.Since(since) > maxRedial {
				pause = minRedial
				continue
			}
		} else {
			gone = h.away(v, err, gone)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// away notes why there is no connection, and tells once when the process is gone.
func (h *Host) away(v *vm, err error, told bool) bool {
	switch {
	case isGone(err):
		if !errors.Is(err, vnic.ErrVMGone) {
			err = fmt.Errorf("%w: %w", vnic.ErrVMGone, err)
		}
		if !told {
			h.log.Info("vm is gone", "vm", v.Name, "error", err)
			h.events.Push(vnic.Event{Kind: vnic.EventVMGone, VM: v.Name})
		}
		told = true
	case errors.Is(err, vnic.ErrVMGone): // lost at once: not known, callers wait for the next attempt
		h.log.Info("connection to vm was lost while it was made", "vm", v.Name, "error", err)
		v.set(nil, nil)
		return told
	}
	v.set(nil, fmt.Errorf("no answer from its hypervisor: %w", err))
	return told
}

func (h *Host) connect(ctx context.Context, v *vm) (backend.VM, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return h.dial(ctx, v.VM, h.log.With("vm", v.Name))
}

// follow passes events on until the connection is lost or ctx ends.
func (h *Host) follow(ctx context.Context, v *vm, b backend.VM) {
	defer func() {
		v.set(nil, nil) // not known: the next attempt tells
		if err := b.Close(); err != nil {
			h.log.Debug("close connection", "vm", v.Name, "error", err)
		}
	}()
	for {
		select {
		case ev, ok := <-b.Events():
			if !ok {
				h.log.Info("connection to vm is lost", "vm", v.Name)
				return
			}
			ev.VM = v.Name
			h.events.Push(ev)
		case <-ctx.Done():
			return
		}
	}
}

// VMStatus is what a VM's hypervisor process says of itself.
type VMStatus struct {
	Running    bool   // it answers; else all that follows is empty
	Moving     bool   // it is being moved to another process, and not asked
	Version    string // of QEMU
	Hotplug    string // "acpi", or "native", whose unplug takes seconds
	SlotsUsed  int    // hotplug slots in use
	SlotsTotal int
}

// Status returns the status of a VM. A VM that is down is no error; one that
// is not registered is a [vnic.ErrUnknownVM].
func (h *Host) Status(ctx context.Context, name string) (VMStatus, error) {
	if h.isMoving(name) {
		return VMStatus{Moving: true}, nil
	}
	v, err := h.vm(name)
	if err != nil {
		return VMStatus{}, err
	}
	var s backend.Status
	err = v.do(ctx, func(b backend.VM) (err error) {
		s, err = b.Status(ctx)
		return err
	})
	if errors.Is(err, vnic.ErrVMGone) {
		return VMStatus{}, nil
	}
	if err != nil {
		return VMStatus{}, fmt.Errorf("status of vm %s: %w", name, err)
	}
	return VMStatus{Running: true, Version: s.Version, Hotplug: s.Hotplug, SlotsUsed: s.SlotsUsed, SlotsTotal: s.SlotsTotal}, nil
}
