package libvirtvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/queue"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

// VM is one run of a domain. It implements [backend.VM] and [backend.TapOpener].
type VM struct {
	name    string
	where   address
	log     *slog.Logger
	slots   *slots.Table
	nics    *nics
	events  *queue.Queue[vnic.Event]
	look    sync.Mutex // held while the domain is looked at
	run     libvirt.Domain
	version string
	owner   int // user who opens taps
	wg      sync.WaitGroup

	// life ends with Close. It is the VM's own and belongs to no call: the
	// connection to libvirtd is kept in it.
	life context.Context
	stop context.CancelFunc

	mu      sync.Mutex           // guards what follows
	refused map[string]time.Time // slots, and when QEMU refused them
	numbers map[string]int       // of PCI controllers, by the names of their buses
	client  *client              // nil while libvirtd doesn't answer
	outage  error                // why there is no client
	gone    error                // set once the domain has stopped
	ended   chan struct{}
	changed chan struct{} // closed, and made anew, when one of these changes
}

var (
	_ backend.VM        = (*VM)(nil)
	_ backend.TapOpener = (*VM)(nil)
)

// Dial connects to the libvirtd of vm, whose domain must be running, and learns
// its slots and vNICs. The error is a [backend.ErrNotRunning] and a
// [vnic.ErrVMGone] when libvirtd says that the domain doesn't run; a libvirtd that
// doesn't answer says nothing, and its error names the socket and the remedy.
func Dial(ctx context.Context, vm vnic.VM, log *slog.Logger) (*VM, error) {
	where, err := vnic.ParseLibvirt(vm.Libvirt)
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	v := &VM{
		name: vm.Name, where: address{where}, log: log.With("vm", vm.Name),
		slots: slots.New(), nics: newNICs(), events: queue.New[vnic.Event](),
		ended: make(chan struct{}), changed: make(chan struct{}),
	}
	v.life, v.stop = context.WithCancel(context.Background())
	c, err := connect(ctx, v.where, v.handle, v.log)
	if err == nil {
		v.run = c.domain
		if err = v.adopt(ctx, c); err != nil {
			c.close()
		}
	}
	if err != nil {
		v.stop()
		v.events.Drop()
		return nil, fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	v.wg.Go(func() { v.keep(c) }) //nolint:contextcheck // it lives until Close, not the dial
	return v, nil
}

// adopt learns what there is and makes c the VM's connection.
func (v *VM) adopt(ctx context.Context, c *client) error {
	var version uint64
	err := c.call(ctx, func() (err error) {
		version, err = c.lv.ConnectGetVersion()
		return err
	})
	if err != nil {
		return fmt.Errorf("ask libvirt for QEMU's version: %w", err)
	}
	owner, err := c.peer()
	if err != nil {
		return err
	}
	_, gone, err := v.inspect(ctx, c)
	if err != nil {
		return err
	}
	if err := v.findOrphans(ctx, c); err != nil {
		return err
	}
	v.mu.Lock()
	v.client, v.outage, v.owner = c, nil, owner
	v.version = fmt.Sprintf("%d.%d.%d", version/1000000, version/1000%1000, version%1000)
	v.wakeLocked()
	v.mu.Unlock()
	for _, id := range gone {
		v.removed(id)
	}
	return nil
}

func (v *VM) wakeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// inspect looks at the domain anew: which vNICs it has, and which are gone though
// nobody waits for that.
func (v *VM) inspect(ctx context.Context, c *client) (found map[vnic.ID]nic, gone []vnic.ID, err error) {
	v.look.Lock()
	defer v.look.Unlock()
	mark := v.slots.Mark()
	d, err := v.fetch(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	buses, numbers := d.buses()
	v.mu.Lock()
	v.numbers = numbers
	v.mu.Unlock()
	v.markRefused(buses)
	v.slots.Merge(mark, buses)
	found = d.vnics()
	return found, v.nics.learn(found), nil
}

// busNumber is what libvirt calls a bus.
func (v *VM) busNumber(name string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.numbers[name]
}

// fetch reads the live XML.
func (v *VM) fetch(ctx context.Context, c *client) (*domain, error) {
	var text string
	err := c.call(ctx, func() (err error) {
		text, err = c.lv.DomainGetXMLDesc(v.run, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the domain's xml: %w", err)
	}
	return parseDomain(text)
}

// Status implements [backend.VM]. The slots are known; libvirtd is asked to see
// that it answers.
func (v *VM) Status(ctx context.Context) (backend.Status, error) {
	err := v.do(ctx, func(c *client) error {
		return c.call(ctx, func() error {
			_, _, err := c.lv.DomainGetState(v.run, 0)
			return err
		})
	})
	if err != nil {
		return backend.Status{}, fmt.Errorf("status of vm %s: %w", v.name, err)
	}
	v.mu.Lock()
	s := backend.Status{Version: v.version, Hotplug: backend.HotplugNative}
	v.mu.Unlock()
	var acpi bool
	if s.SlotsUsed, s.SlotsTotal, acpi = v.slots.Counts(); acpi {
		s.Hotplug = backend.HotplugACPI
	}
	return s, nil
}

// TapOwner implements [backend.TapOpener]: the user that libvirtd runs as.
func (v *VM) TapOwner() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.owner
}

// Events implements [backend.VM].
func (v *VM) Events() <-chan vnic.Event { return v.events.Out() }

// Close implements [backend.VM].
func (v *VM) Close() error {
	v.stop()
	v.wg.Wait()
	v.events.Drop()
	return nil
}

// handle takes one of libvirt's events. It doesn't wait.
func (v *VM) handle(event any) {
	switch e := event.(type) {
	case *libvirt.DomainEventCallbackLifecycleMsg:
		if v.same(e.Msg.Dom) && libvirt.DomainEventType(e.Msg.Event) == libvirt.DomainEventStopped {
			v.end(fmt.Errorf("domain %s has stopped: %w", v.where.Name, errStopped))
		}
	case *libvirt.DomainEventCallbackDeviceRemovedMsg:
		if id, ok := aliasID(e.Msg.DevAlias); ok && v.same(e.Msg.Dom) && !v.nics.tell(id, nil) {
			v.wg.Go(func() { v.afterRemoval(id) })
		}
	case *libvirt.DomainEventCallbackDeviceRemovalFailedMsg:
		if id, ok := aliasID(e.DevAlias); ok && v.same(e.Dom) {
			v.nics.tell(id, errGuestRefused)
		}
	}
}

// same tells that an event is about this domain. A stopped domain has no number
// any more.
func (v *VM) same(d libvirt.Domain) bool {
	return d.UUID == v.run.UUID && (d.ID == v.run.ID || d.ID == shutOff)
}

// afterRemoval looks whether a vNIC really left by itself, and tells.
func (v *VM) afterRemoval(id vnic.ID) {
	ctx, cancel := context.WithTimeout(v.life, cleanLimit)
	defer cancel()
	unlock, err := v.nics.lock(ctx, id)
	if err != nil {
		v.log.Warn("removal of a vnic is not looked into", "id", id, "error", err)
		return
	}
	defer unlock()
	if _, known := v.nics.get(id); !known {
		return // the end of an Unplug
	}
	if err := v.relook(ctx); err != nil && !errors.Is(err, vnic.ErrVMGone) {
		v.log.Warn("removal of a vnic is not looked into", "id", id, "error", err)
	}
}

// removed notes and tells that a vNIC left without being asked to.
func (v *VM) removed(id vnic.ID) {
	v.log.Info("vnic left without being asked to", "id", id)
	v.forget(id)
	v.events.Push(vnic.Event{Kind: vnic.EventRemoved, VM: v.name, ID: id})
}

func (v *VM) forget(id vnic.ID) {
	v.nics.forget(id)
	v.slots.Release(alias(id))
}
