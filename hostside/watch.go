package hostside

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const (
	watchPause = time.Second      // after an error of the monitor
	askLimit   = 10 * time.Second // for asking a hypervisor whether it still has a device
)

// linkWatch notices taps that someone else deletes or takes from their bridge,
// also by deleting the bridge.
type linkWatch struct {
	host    *Host
	log     *slog.Logger
	conn    *rtnl.Conn
	monitor *rtnl.Monitor
	done    chan struct{}      // closed when the goroutine has ended
	ports   map[vnic.ID]string // the taps that are in a bridge, with their VMs; the goroutine's own
}

// newLinkWatch watches the links of the calling thread's network namespace.
func newLinkWatch(h *Host) (*linkWatch, error) {
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	monitor, err := rtnl.NewMonitor(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := &linkWatch{host: h, log: h.log, conn: conn, monitor: monitor, done: make(chan struct{}), ports: map[vnic.ID]string{}}
	go w.run()
	return w, nil
}

// close ends the watch, once the host's life has ended.
func (w *linkWatch) close() error {
	err := w.monitor.Close()
	<-w.done
	return errors.Join(err, w.conn.Close())
}

func (w *linkWatch) run() {
	defer close(w.done)
	for {
		u, err := w.monitor.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			w.log.Warn("watch taps", "error", err)
			select {
			case <-time.After(watchPause):
			case <-w.host.life.Done():
			}
			continue
		}
		for vm, ids := range w.lost(u) {
			w.tell(vm, ids)
		}
	}
}

// lost takes news in and returns, by VM, the taps that are no ports any more and
// that no operation of the host is about.
func (w *linkWatch) lost(u rtnl.Update) map[string][]vnic.ID {
	before := w.ports
	if u.Full {
		w.ports = make(map[vnic.ID]string, len(before))
	}
	lost := map[string][]vnic.ID{}
	note := func(id vnic.ID, vm string) {
		if unlock, ok := w.host.ids.TryLock(id); ok {
			unlock()
			lost[vm] = append(lost[vm], id)
		}
	}
	for _, c := range u.Changes {
		id, ok := vnic.IDFromName(c.Link.Name)
		if !ok || id.TapName() != c.Link.Name {
			continue
		}
		a, ok := port.ParseAlias(c.Link.Alias)
		if ok && !a.Parked && !c.Gone && (c.Link.Master != 0 || port.IsDirect(c.Link)) && c.Link.Up {
			w.ports[id] = a.VM
		} else if vm, ok := w.ports[id]; ok {
			delete(w.ports, id)
			if !a.Parked { // that was the host
				note(id, vm)
			}
		}
	}
	if u.Full {
		for id, vm := range before {
			if _, ok := w.ports[id]; !ok {
				note(id, vm)
			}
		}
	}
	return lost
}

// tell has a VM be looked at anew when its hypervisor has a device of those
// taps. Without, the taps went with the device, or with the hypervisor.
func (w *linkWatch) tell(vm string, ids []vnic.ID) {
	v, err := w.host.vm(vm)
	if err != nil {
		return // it is not registered any more
	}
	ctx, cancel := context.WithTimeout(w.host.life, askLimit)
	defer cancel()
	ports, err := v.ports(ctx)
	if err != nil {
		w.log.Debug("ask for the devices of lost taps", "vm", vm, "error", err)
		return // a connection that comes back is told, too
	}
	i := slices.IndexFunc(ports, func(p vnic.Port) bool { return slices.Contains(ids, p.ID) })
	if i < 0 {
		return
	}
	w.log.Warn("tap was deleted or taken from its bridge by someone else", "vm", vm, "id", ports[i].ID, "taps", len(ids))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.backend != nil { // in this order with the event that it is gone
		w.host.events.Push(vnic.Event{Kind: vnic.EventVMUp, VM: vm})
	}
}
