package hostside

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// hypervisor stands for a hypervisor process: like QEMU it keeps copies of the
// taps' descriptors while a device exists, and all go when it dies.
type hypervisor struct {
	mu      sync.Mutex
	dead    bool
	slots   int
	devices map[vnic.ID]*device
	conns   map[*connection]bool
	dialErr error         // what the next dial fails with
	plugErr error         // what the next Plug fails with
	lose    bool          // the next Plug does its work, and the connection is lost before it answers
	hold    chan struct{} // Plug waits until it is closed
	plugs   int
	busy    chan struct{} // the guest lets go of devices once it is closed

	onUnplug func() // called when a device's descriptors are about to be closed

	detached []vnic.ID // whose devices went before their descriptors
}

type device struct {
	backend.Device
	files []*os.File
}

type connection struct {
	*hypervisor
	events chan vnic.Event
}

func newHypervisor() *hypervisor {
	return &hypervisor{slots: 8, devices: map[vnic.ID]*device{}, conns: map[*connection]bool{}}
}

func (y *hypervisor) dial(context.Context, vnic.VM, *slog.Logger) (backend.VM, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if err := y.dialErr; err != nil {
		y.dialErr = nil
		return nil, err
	}
	if y.dead {
		return nil, os.NewSyscallError("connect", unix.ECONNREFUSED)
	}
	c := &connection{hypervisor: y, events: make(chan vnic.Event, 16)}
	y.conns[c] = true
	return c, nil
}

// drop ends all connections.
func (y *hypervisor) drop() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.dropLocked()
}

func (y *hypervisor) dropLocked() {
	for c := range y.conns {
		close(c.events)
	}
	clear(y.conns)
}

func (y *hypervisor) die() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.dead = true
	y.dropLocked()
	for id := range y.devices {
		y.removeLocked(id)
	}
}

// start is another process in the place of one that died.
func (y *hypervisor) start() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.dead = false
}

func (y *hypervisor) removeLocked(id vnic.ID) {
	for _, f := range y.devices[id].files {
		_ = f.Close()
	}
	delete(y.devices, id)
}

func (c *connection) Plug(ctx context.Context, n backend.NIC) (string, error) {
	c.mu.Lock()
	hold := c.hold
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plugs++
	switch err := c.plugErr; {
	case !c.conns[c]:
		return "", vnic.ErrVMGone
	case err != nil:
		c.plugErr = nil
		return "", err
	case c.devices[n.ID] != nil:
		return c.devices[n.ID].Slot, nil
	case len(c.devices) >= c.slots:
		return "", &vnic.NoSlotError{VM: "vm", Used: c.slots, Total: c.slots}
	}
	d := &device{Device: backend.Device{ID: n.ID, MAC: n.MAC, Slot: "rp0/1", Backend: true, Frontend: true}}
	for _, f := range n.Files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		d.files = append(d.files, os.NewFile(uintptr(fd), "tap"))
	}
	c.devices[n.ID] = d
	if c.lose {
		c.lose = false
		c.dropLocked()
		return "", vnic.ErrVMGone
	}
	return d.Slot, nil
}

func (c *connection) Unplug(_ context.Context, id vnic.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.conns[c] {
		return vnic.ErrVMGone
	}
	if c.devices[id] != nil {
		if c.onUnplug != nil {
			c.onUnplug()
		}
		c.removeLocked(id)
	}
	return nil
}

// Detach takes the device and leaves the descriptors, as QEMU does.
func (c *connection) Detach(ctx context.Context, id vnic.ID) error {
	c.mu.Lock()
	busy, there := c.busy, c.devices[id] != nil
	c.mu.Unlock()
	if busy != nil && there {
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.conns[c] {
		return vnic.ErrVMGone
	}
	c.detached = append(c.detached, id)
	return nil
}

func (c *connection) List(context.Context) ([]backend.Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.conns[c] {
		return nil, vnic.ErrVMGone
	}
	var all []backend.Device
	for _, d := range c.devices {
		all = append(all, d.Device)
	}
	return all, nil
}

func (c *connection) SetLink(context.Context, vnic.ID, bool) error { return nil }

func (c *connection) Status(context.Context) (backend.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.conns[c] {
		return backend.Status{}, vnic.ErrVMGone
	}
	return backend.Status{Version: "7.2.22", Hotplug: "acpi", SlotsUsed: len(c.devices), SlotsTotal: c.slots}, nil
}

func (c *connection) Events() <-chan vnic.Event { return c.events }

func (c *connection) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns[c] {
		delete(c.conns, c)
		close(c.events)
	}
	return nil
}

var (
	testNet = vnic.Network{
		Name: "pods", Masquerade: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")},
	}
	testVM = vnic.VM{Name: "vm", QMP: "/run/vm.qmp", Channel: "/run/vm.agent"}
)

// newTestHost returns a Host in a namespace of its own, with the VM registered
// and the network set.
func newTestHost(tb testing.TB) (*Host, *hypervisor, *netnstest.NS) {
	tb.Helper()
	ns := netnstest.New(tb)
	y := newHypervisor()
	h := openTestHost(tb, ns, y)
	tb.Cleanup(y.die)
	require.NoError(tb, h.AddVM(tb.Context(), testVM))
	require.NoError(tb, h.SetNetwork(tb.Context(), testNet))
	requireEvent(tb, h, vnic.EventVMUp)
	return h, y, ns
}

func openTestHost(tb testing.TB, ns *netnstest.NS, y *hypervisor) *Host {
	tb.Helper()
	var h *Host
	ns.In(func() (err error) {
		h, err = newHost(Config{Log: slog.New(slog.DiscardHandler)}, y.dial)
		return err
	})
	tb.Cleanup(func() { require.NoError(tb, h.Close()) })
	return h
}

func testPlug() vnic.Plug {
	return vnic.Plug{
		VM: "vm", ID: vnic.NewID(), Network: "pods", MAC: vnic.NewMAC(),
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00:9::2")},
	}
}

func requireEvent(tb testing.TB, h *Host, kind vnic.EventKind) vnic.Event {
	tb.Helper()
	select {
	case ev := <-h.Events():
		require.Equal(tb, kind, ev.Kind)
		require.Equal(tb, "vm", ev.VM)
		return ev
	case <-time.After(5 * time.Second):
		require.FailNow(tb, "no event came", "want %s", kind)
		return vnic.Event{}
	}
}
