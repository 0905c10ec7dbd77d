// Package guestlink is the host's end of the channels to the agents in the VMs.
//
// A [Links] keeps one session per VM: it dials the VM's channel again and again,
// shakes hands, makes calls, and serves the agent's reports and what the guest asks
// for. A VM is known by its channel, never by what its agent says, and all that an
// agent says is checked before it becomes a value of package vnic.
package guestlink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/wire"
	"github.com/brfuse/brfuse/vnic"
)

// Config sets up a [Links]. The zero value is ready to use.
type Config struct {
	// Log gets the comings and goings of sessions. Default: nothing is logged.
	Log *slog.Logger
	// OnEvent is told of [vnic.EventAgentUp], [vnic.EventAgentOff] and
	// [vnic.EventReturned], those of one VM one after the other. While it blocks, no
	// further event of that VM comes and a lost session is not renewed. Optional.
	OnEvent func(vnic.Event)
	// Orders carries out what agents ask for. Default: nothing is.
	Orders Orders
	// Grace is how long a call waits for a session. Default: 5 s.
	Grace time.Duration
	// Heartbeat is the time between heartbeats. Default: 1 s.
	Heartbeat time.Duration
	// Silence is how long a silent agent is borne. Default: 10 s.
	Silence time.Duration
	// Timeouts bound calls, beside their contexts.
	Timeouts Timeouts
}

// Timeouts bound the calls to an agent, the wait for a session not included.
type Timeouts struct {
	Info      time.Duration // default 5 s
	Prepare   time.Duration // default 10 s
	Move      time.Duration // default 30 s; it includes the wait for the vNIC
	Configure time.Duration // default 15 s
	Release   time.Duration // default 15 s
	NICs      time.Duration // default 15 s
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnEvent == nil {
		c.OnEvent = func(vnic.Event) {}
	}
	t := &c.Timeouts
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	t.Info = cmp.Or(t.Info, 5*time.Second)
	t.Prepare = cmp.Or(t.Prepare, 10*time.Second)
	t.Move = cmp.Or(t.Move, 30*time.Second)
	t.Configure = cmp.Or(t.Configure, 15*time.Second)
	t.Release = cmp.Or(t.Release, 15*time.Second)
	t.NICs = cmp.Or(t.NICs, 15*time.Second)
	return c
}

// Links are the channels to the agents of a hypervisor's VMs. Its methods are
// safe for concurrent use.
type Links struct {
	cfg Config

	mu     sync.Mutex // guards what is below
	links  map[string]*link
	closed bool
}

// New returns a Links without a VM. Close it after use.
func New(cfg Config) *Links {
	return &Links{cfg: cfg.withDefaults(), links: make(map[string]*link)}
}

// AddVM begins to keep a session with a VM's agent, and does not wait for it.
// A VM that is there already with the same channel is fine, with another one it
// is [vnic.ErrConflict].
func (l *Links) AddVM(ctx context.Context, vm vnic.VM) error {
	if err := vnic.CheckVMName(vm.Name); err != nil {
		return err
	}
	ch, err := wire.ParseChannel(vm.Channel)
	if err != nil {
		return fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("vm %s: links are closed: %w", vm.Name, wire.ErrClosed)
	}
	if old, ok := l.links[vm.Name]; ok {
		if old.channel != ch {
			return fmt.Errorf("vm %s has the channel %s: %w", vm.Name, old.channel, vnic.ErrConflict)
		}
		return nil
	}
	l.links[vm.Name] = startLink(context.WithoutCancel(ctx), l.cfg, vm.Name, ch)
	return nil
}

// RemoveVM ends the VM's session and forgets the VM, or returns
// [vnic.ErrUnknownVM].
func (l *Links) RemoveVM(_ context.Context, name string) error {
	l.mu.Lock()
	k, ok := l.links[name]
	delete(l.links, name)
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("vm %s: %w", name, vnic.ErrUnknownVM)
	}
	k.close()
	return nil
}

// Kick makes the link to a VM dial at once, if it has no session: call it when
// the VM is known to have started. An unknown VM is ignored.
func (l *Links) Kick(vm string) {
	if k, err := l.link(vm); err == nil {
		k.hurry()
	}
}

// Drop ends the session with a VM's agent, if there is one: call it when the
// agent is known to have closed its end, which the channel itself does not
// tell. An agent that is there gets a new session at once.
func (l *Links) Drop(vm string) {
	if k, err := l.link(vm); err == nil {
		k.drop()
	}
}

// Close ends all sessions and waits until nothing of them is left.
func (l *Links) Close() error {
	l.mu.Lock()
	links := l.links
	l.links, l.closed = map[string]*link{}, true
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range links {
		wg.Go(k.close)
	}
	wg.Wait()
	return nil
}

func (l *Links) link(vm string) (*link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.links[vm]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
}

// errRemoved is why the session of a VM ended that was removed.
var errRemoved = errors.New("the vm is being removed")
