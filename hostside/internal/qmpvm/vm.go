package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/queue"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

// VM is the QMP connection to one virtual machine. It implements [backend.VM].
type VM struct {
	name   string
	conn   *Conn
	log    *slog.Logger
	slots  *slots.Table
	traits traits
	nics   *nics
	stale  stale
	events *queue.Queue[vnic.Event]
	wg     sync.WaitGroup
	names  atomic.Uint64 // makes names of passed descriptors unique
	look   sync.Mutex    // held while the slots are looked at anew
}

var (
	_ backend.VM       = (*VM)(nil)
	_ backend.Detacher = (*VM)(nil)
)

// Dial connects to vm's QMP socket and learns its slots and vNICs. Errors name
// the socket and the remedy, as [DialConn] says.
func Dial(ctx context.Context, vm vnic.VM, log *slog.Logger) (*VM, error) {
	conn, sub, err := dial(ctx, vm.QMP, log)
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", vm.Name, err)
	}
	v, err := newVM(ctx, vm.Name, conn, sub, log)
	if err != nil {
		return nil, fmt.Errorf("vm %s: learn its slots: %w", vm.Name, err)
	}
	return v, nil
}

// newVM owns conn and sub, also when it fails.
func newVM(ctx context.Context, name string, conn *Conn, sub *Subscription, log *slog.Logger) (*VM, error) {
	v := &VM{
		name:   name,
		conn:   conn,
		log:    log.With("vm", name),
		slots:  slots.New(),
		nics:   newNICs(),
		events: queue.New[vnic.Event](),
	}
	err := v.refresh(ctx)
	if err == nil {
		v.traits, err = v.conn.traits(ctx)
	}
	if err == nil {
		_, err = v.List(ctx)
	}
	// Events of the meantime are waiting in sub.
	v.wg.Go(func() { v.follow(sub) }) //nolint:contextcheck // it lives as long as the connection, not the dial
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// refresh looks at the slots anew.
func (v *VM) refresh(ctx context.Context) error {
	v.look.Lock()
	defer v.look.Unlock()
	mark := v.slots.Mark()
	buses, err := v.conn.scan(ctx)
	if err != nil {
		return err
	}
	v.slots.Merge(mark, buses)
	return nil
}

// Status implements [backend.VM]. The slots are known; QEMU is asked to see
// that it answers.
func (v *VM) Status(ctx context.Context) (backend.Status, error) {
	var devices []property
	if err := v.conn.ask(ctx, qomList(peripheral, &devices)); err != nil {
		return backend.Status{}, fmt.Errorf("status of vm %s: %w", v.name, err)
	}
	s := backend.Status{Version: v.conn.Version().String(), Hotplug: backend.HotplugNative}
	var acpi bool
	if s.SlotsUsed, s.SlotsTotal, acpi = v.slots.Counts(); acpi {
		s.Hotplug = backend.HotplugACPI
	}
	return s, nil
}

// SetLink implements [backend.VM].
func (v *VM) SetLink(ctx context.Context, id vnic.ID, up bool) error {
	err := v.run(ctx, "set_link", args{"name": id.DeviceID(), "up": up})
	if errors.Is(err, ErrDeviceNotFound) {
		err = fmt.Errorf("%w: %w", err, vnic.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("set link of vnic %s in vm %s: %w", id, v.name, err)
	}
	return nil
}

// Events implements [backend.VM].
func (v *VM) Events() <-chan vnic.Event { return v.events.Out() }

// Close implements [backend.VM].
func (v *VM) Close() error {
	err := v.conn.Close()
	v.wg.Wait()
	v.events.Drop()
	return err
}

// follow handles QEMU's events until the connection ends.
func (v *VM) follow(sub *Subscription) {
	defer v.events.End()
	defer sub.Close()
	for e := range sub.C() {
		switch e.Event {
		case "DEVICE_DELETED":
			v.deleted(e)
		case "DEVICE_UNPLUG_GUEST_ERROR":
			if id, ok := eventID(e); ok {
				v.nics.tell(id, errGuestRefused)
			}
		case "VSERPORT_CHANGE":
			if id, ok := e.Data["id"].(string); ok && e.Data["open"] == false {
				v.wg.Go(func() { v.portClosed(id) })
			}
		}
	}
}

// agentPort is the name of the virtio-serial port that agents use.
const agentPort = "org.brfuse.agent.0"

// portClosed tells that the agent has closed its port, or died. Without an id
// of the port QEMU doesn't tell, and a port of another name is none of ours.
func (v *VM) portClosed(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	var name string
	get := &query{cmd: "qom-get", args: args{"path": peripheral + "/" + id, "property": "name"}, into: &name}
	if err := v.conn.ask(ctx, get); err != nil || name != agentPort {
		return
	}
	v.events.Push(vnic.Event{Kind: vnic.EventAgentOff, VM: v.name})
}

// eventID returns the vNIC whose device an event names. Events of the device's
// inner parts name none.
func eventID(e qmp.Event) (vnic.ID, bool) {
	name, ok := e.Data["device"].(string)
	if !ok {
		return "", false
	}
	id, ok := vnic.IDFromName(name)
	return id, ok && id.DeviceID() == name
}

// innerPart is a virtio device's part that QEMU removes with it, and tells of at
// that moment. Of the device itself it tells once its memory may be reused, which
// takes another 50 ms and more.
const innerPart = "/virtio-backend"

func (v *VM) deleted(e qmp.Event) {
	path, _ := e.Data["path"].(string)
	if outer, ok := strings.CutSuffix(path, innerPart); ok {
		if id, ok := vnic.IDFromName(strings.TrimPrefix(outer, peripheral+"/")); ok && devicePath(id) == outer {
			v.nics.tell(id, errLeaving)
		}
		return
	}
	id, ok := eventID(e)
	if !ok {
		v.slots.Release(path)
		return
	}
	if v.nics.overdue(id) || v.putBack(id) {
		return
	}
	v.release(id)
	if !v.nics.gone(id) {
		return
	}
	v.log.Info("vnic left without being asked to", "id", id)
	v.wg.Go(func() { v.afterRemoval(id) })
}

// cleanLimit bounds cleaning up that nobody waits for.
const cleanLimit = 10 * time.Second

// afterRemoval removes the backend of a device that left by itself.
func (v *VM) afterRemoval(id vnic.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	unlock, err := v.nics.lock(ctx, id)
	if err != nil {
		v.log.Warn("backend stays after a removal", "id", id, "error", err)
		return
	}
	defer unlock()
	if _, back := v.nics.get(id); back {
		return // plugged again meanwhile, with a backend of its own
	}
	if err := v.deleteNetdev(ctx, id); err != nil {
		v.log.Warn("backend stays after a removal", "id", id, "error", err)
	}
	v.events.Push(vnic.Event{Kind: vnic.EventRemoved, VM: v.name, ID: id})
}
