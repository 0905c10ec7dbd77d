// Package backendtest tests implementations of [backend.VM]: [Conformance] is
// what all of them must do, and [Fake] is one in memory, for tests of the code
// above.
package backendtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// Fake is a virtual machine in memory. It is safe for concurrent use.
type Fake struct {
	name   string
	slots  int
	events chan vnic.Event

	mu     sync.Mutex // guards what follows
	gone   bool
	nics   map[vnic.ID]*fakeNIC
	fail   map[string]error
	stopUn chan struct{} // while not nil, Unplug waits for it
}

type fakeNIC struct {
	backend.Device
	mtu, queues int
	tap         string
	vhost, up   bool
}

var _ backend.VM = (*Fake)(nil)

// fakeEvents is how many unread events a Fake holds: more than any test makes.
const fakeEvents = 1024

// NewFake returns a machine with so many slots, "br1/01" and on.
func NewFake(name string, slots int) *Fake {
	return &Fake{
		name: name, slots: slots,
		events: make(chan vnic.Event, fakeEvents),
		nics:   map[vnic.ID]*fakeNIC{},
		fail:   map[string]error{},
	}
}

// Fail makes the next call of a method, such as "Plug", return err.
func (f *Fake) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = err
}

// Put adds a device behind the callers' back. Without frontend it is a backend
// that a crash left.
func (f *Fake) Put(d backend.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.Frontend && d.Slot == "" {
		d.Slot = f.freeLocked()
	}
	f.nics[d.ID] = &fakeNIC{Device: d, up: true}
}

// Eject removes a vNIC on the guest's own account.
func (f *Fake) Eject(id vnic.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.nics[id]; ok && !f.gone {
		delete(f.nics, id)
		f.events <- vnic.Event{Kind: vnic.EventRemoved, VM: f.name, ID: id}
	}
}

// HoldUnplug makes Unplug wait, as a guest does that doesn't let go, until
// release is called.
func (f *Fake) HoldUnplug() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{})
	f.stopUn = ch
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stopUn = nil
		close(ch)
	})
}

// Kill is the end of the hypervisor.
func (f *Fake) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.gone {
		f.gone = true
		close(f.events)
	}
}

// String returns the state, a line a vNIC, ordered by ID.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(f.nics)) {
		n := f.nics[id]
		if !n.Frontend {
			fmt.Fprintf(&b, "vnic %s backend only\n", id)
			continue
		}
		link := "down"
		if n.up {
			link = "up"
		}
		fmt.Fprintf(&b, "vnic %s slot %s mac %s mtu %d queues %d tap %s vhost %t link %s\n",
			id, n.Slot, n.MAC, n.mtu, n.queues, n.tap, n.vhost, link)
	}
	return b.String()
}

// enterLocked is the beginning of each method.
func (f *Fake) enterLocked(ctx context.Context, method string) error {
	if f.gone {
		return fmt.Errorf("vm %s: %w", f.name, vnic.ErrVMGone)
	}
	if err := f.fail[method]; err != nil {
		delete(f.fail, method)
		return err
	}
	return context.Cause(ctx)
}

func (f *Fake) freeLocked() string {
	for i := 1; i <= f.slots; i++ {
		slot := fmt.Sprintf("br1/%02x", i)
		taken := false
		for _, n := range f.nics {
			taken = taken || n.Slot == slot
		}
		if !taken {
			return slot
		}
	}
	return ""
}

func (f *Fake) usedLocked() int {
	used := 0
	for _, n := range f.nics {
		if n.Frontend {
			used++
		}
	}
	return used
}

// Plug implements [backend.VM].
func (f *Fake) Plug(ctx context.Context, n backend.NIC) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enterLocked(ctx, "Plug"); err != nil {
		return "", fmt.Errorf("plug vnic %s: %w", n.ID, err)
	}
	if len(n.Files) != n.Queues || n.Queues < 1 || n.MAC.IsZero() {
		return "", fmt.Errorf("plug vnic %s: %d files for %d queues, mac %s: %w", n.ID, len(n.Files), n.Queues, n.MAC, vnic.ErrInvalid)
	}
	if old, ok := f.nics[n.ID]; ok && old.Frontend && old.Backend {
		return old.Slot, nil
	}
	delete(f.nics, n.ID)
	slot := f.freeLocked()
	if slot == "" {
		return "", &vnic.NoSlotError{VM: f.name, Used: f.usedLocked(), Total: f.slots}
	}
	f.nics[n.ID] = &fakeNIC{
		Device: backend.Device{ID: n.ID, MAC: n.MAC, Slot: slot, Backend: true, Frontend: true},
		mtu:    n.MTU, queues: n.Queues, tap: n.Tap, vhost: len(n.Vhost) != 0, up: true,
	}
	return slot, nil
}

// Unplug implements [backend.VM].
func (f *Fake) Unplug(ctx context.Context, id vnic.ID) error {
	f.mu.Lock()
	hold := f.stopUn
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enterLocked(ctx, "Unplug"); err != nil {
		return fmt.Errorf("unplug vnic %s: %w", id, err)
	}
	delete(f.nics, id)
	return nil
}

// List implements [backend.VM].
func (f *Fake) List(ctx context.Context) ([]backend.Device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enterLocked(ctx, "List"); err != nil {
		return nil, fmt.Errorf("list vnics: %w", err)
	}
	var list []backend.Device
	for _, id := range slices.Sorted(maps.Keys(f.nics)) {
		list = append(list, f.nics[id].Device)
	}
	return list, nil
}

// SetLink implements [backend.VM].
func (f *Fake) SetLink(ctx context.Context, id vnic.ID, up bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enterLocked(ctx, "SetLink"); err != nil {
		return fmt.Errorf("set link of vnic %s: %w", id, err)
	}
	n, ok := f.nics[id]
	if !ok || !n.Frontend {
		return fmt.Errorf("set link of vnic %s: %w", id, vnic.ErrNotFound)
	}
	n.up = up
	return nil
}

// Status implements [backend.VM].
func (f *Fake) Status(ctx context.Context) (backend.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enterLocked(ctx, "Status"); err != nil {
		return backend.Status{}, fmt.Errorf("status: %w", err)
	}
	return backend.Status{
		Version: "0.0.0", Hotplug: backend.HotplugACPI, SlotsUsed: f.usedLocked(), SlotsTotal: f.slots,
	}, nil
}

// Events implements [backend.VM].
func (f *Fake) Events() <-chan vnic.Event { return f.events }

// Close implements [backend.VM].
func (f *Fake) Close() error {
	f.Kill()
	return nil
}
