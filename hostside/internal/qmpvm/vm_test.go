package qmpvm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/backend/backendtest"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/vnic"
)

const (
	idA  vnic.ID = "00000000aa"
	macA string  = "02:00:00:00:00:0a"
)

func dialMachine(t *testing.T, m *qmptest.Machine) *VM {
	t.Helper()
	s := qmptest.NewServer(t, m.Handle)
	v, err := Dial(t.Context(), vnic.VM{Name: "vm1", QMP: s.Path}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

func testNIC(t *testing.T, queues int) backend.NIC {
	t.Helper()
	n := backendtest.Machine{}.NIC(t, queues)
	n.ID = idA
	n.MAC, _ = vnic.ParseMAC(macA)
	return n
}

func TestVMConforms(t *testing.T) {
	backendtest.Conformance(t, backendtest.Harness{Start: func(t *testing.T) backendtest.Machine {
		t.Helper()
		m := qmptest.NewMachine(20, 2)
		return backendtest.Machine{
			VM:    dialMachine(t, m),
			Eject: func(id vnic.ID) { m.Eject(id.DeviceID()) },
			Kill:  m.Kill,
		}
	}})
}

func TestPlugMakesBackendAndDevice(t *testing.T) {
	m := qmptest.NewMachine(4, 1)
	v := dialMachine(t, m)
	n := testNIC(t, 2)
	n.Vhost = n.Files
	slot, err := v.Plug(t.Context(), n)
	require.NoError(t, err)
	assert.Equal(t, "br0/01", slot, "bridges come before root ports")
	assert.Equal(t, "device brf00000000aa br0/01 02:00:00:00:00:0a netdev brfn00000000aa link up\n"+
		"netdev brfn00000000aa fds 4\n", m.String())
	assert.Equal(t, []string{"getfd", "getfd", "getfd", "getfd", "netdev_add", "device_add"}, m.Commands(),
		"the fast path asks nothing")
}

func TestPlugFailsAndLeavesNothing(t *testing.T) {
	for _, c := range []struct{ name, command, desc string }{
		{"descriptor", "getfd", "No file descriptor supplied via SCM_RIGHTS"},
		{"backend", "netdev_add", "TUNGETIFF ioctl() failed"},
		{"device", "device_add", "out of memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := qmptest.NewMachine(4, 1)
			v := dialMachine(t, m)
			m.Fail(c.command, "GenericError", c.desc)
			_, err := v.Plug(t.Context(), testNIC(t, 2))
			require.ErrorContains(t, err, "plug vnic 00000000aa into vm vm1: "+c.command+": "+c.desc)
			assert.Empty(t, m.String())
			s, err := v.Status(t.Context())
			require.NoError(t, err)
			assert.Equal(t, backend.Status{Version: "7.2.22", Hotplug: "acpi", SlotsUsed: 27, SlotsTotal: 32}, s)
		})
	}
}

func TestPlugAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		put   func(*qmptest.Machine)
		after string
		slot  string
		list  backend.Device
	}{
		{
			name:  "backend only",
			put:   func(m *qmptest.Machine) { m.PutNetdev(idA.NetdevID()) },
			list:  backend.Device{ID: idA, Backend: true},
			slot:  "br0/01",
			after: "device brf00000000aa br0/01 02:00:00:00:00:0a netdev brfn00000000aa link up\nnetdev brfn00000000aa fds 1\n",
		},
		{
			name:  "device without backend",
			put:   func(m *qmptest.Machine) { m.Put(idA.DeviceID(), "br0", 3, macA, "") },
			list:  backend.Device{ID: idA, MAC: vnic.MAC{2, 5: 10}, Slot: "br0/03", Frontend: true},
			slot:  "br0/01",
			after: "device brf00000000aa br0/01 02:00:00:00:00:0a netdev brfn00000000aa link up\nnetdev brfn00000000aa fds 1\n",
		},
		{
			name:  "complete",
			put:   func(m *qmptest.Machine) { m.Put(idA.DeviceID(), "rp1", 0, macA, idA.NetdevID()) },
			list:  backend.Device{ID: idA, MAC: vnic.MAC{2, 5: 10}, Slot: "rp1/00", Backend: true, Frontend: true},
			slot:  "rp1/00",
			after: "device brf00000000aa rp1/00 02:00:00:00:00:0a netdev brfn00000000aa link up\nnetdev brfn00000000aa fds 1\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := qmptest.NewMachine(4, 1)
			c.put(m)
			v := dialMachine(t, m)
			list, err := v.List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []backend.Device{c.list}, list)
			slot, err := v.Plug(t.Context(), testNIC(t, 1))
			require.NoError(t, err)
			assert.Equal(t, c.slot, slot)
			assert.Equal(t, c.after, m.String())
		})
	}
}

func TestPlugTriesAnotherSlot(t *testing.T) {
	m := qmptest.NewMachine(3, 1)
	v := dialMachine(t, m)
	m.Put("nvme0", "br0", 1, "", "") // somebody else's, and no event tells of it
	slot, err := v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err)
	assert.Equal(t, "br0/02", slot)
	s, err := v.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 30, s.SlotsUsed)

	m.Eject("nvme0") // its event frees the slot again
	assert.EventuallyWithT(t, func(t *assert.CollectT) {
		s, err := v.Status(context.Background())
		assert.NoError(t, err)
		assert.Equal(t, 29, s.SlotsUsed)
	}, 5*time.Second, time.Millisecond)
}

// TestPlugThatIsGivenUp gives up when the device may or may not have been added:
// the answer comes after the context's end.
func TestPlugThatIsGivenUp(t *testing.T) {
	m := qmptest.NewMachine(3, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("given up")
	var held *qmptest.Request
	s := qmptest.NewServer(t, func(c *qmptest.Client, r qmptest.Request) {
		if r.Execute == "device_add" {
			held = &r
			cancel(boom)
			return
		}
		if held != nil {
			m.Handle(c, *held)
			held = nil
		}
		m.Handle(c, r)
	})
	v, err := Dial(t.Context(), vnic.VM{Name: "vm1", QMP: s.Path}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Plug(ctx, testNIC(t, 1))
	require.ErrorIs(t, err, boom)
	assert.Equal(t, []string{"getfd", "netdev_add", "device_add", "device_del", "netdev_del"}, m.Commands())
	assert.Empty(t, m.String(), "device and backend are taken back")
	st, err := v.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 28, st.SlotsUsed)
}

func TestUnplugRefused(t *testing.T) {
	m := qmptest.NewMachine(3, 1)
	m.Put(idA.DeviceID(), "br0", 1, macA, idA.NetdevID())
	m.SetGuest(qmptest.Refuses, 0)
	v := dialMachine(t, m)
	err := v.Unplug(t.Context(), idA)
	require.EqualError(t, err, "unplug vnic 00000000aa from vm vm1: the guest refuses to release the device")
	m.SetGuest(qmptest.Prompt, 0)
	require.NoError(t, v.Unplug(t.Context(), idA))
	assert.Empty(t, m.String())
}

// TestUnplugDoesNotAwaitTheLastEvent: the device is gone before QEMU says so, and
// its late word is not taken for that of a device which came after it.
func TestUnplugDoesNotAwaitTheLastEvent(t *testing.T) {
	m := qmptest.NewMachine(1, 0)
	m.SetSlow()
	v := dialMachine(t, m)
	for range 2 {
		_, err := v.Plug(t.Context(), testNIC(t, 1))
		require.NoError(t, err)
		require.NoError(t, v.Unplug(t.Context(), idA))
		assert.Empty(t, m.String())
	}
	_, err := v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err, "there is but one slot")
	plugged := m.String()
	for range 2 {
		m.Finish(idA.DeviceID())
	}
	assert.Eventually(t, func() bool {
		v.nics.mu.Lock()
		defer v.nics.mu.Unlock()
		return len(v.nics.late) == 0
	}, 5*time.Second, time.Millisecond)
	_, known := v.nics.get(idA)
	assert.True(t, known)
	used, total, _ := v.slots.Counts()
	assert.Equal(t, total, used, "its slot is not given away")
	assert.Equal(t, plugged, m.String())
	settle(v)
	m.Eject(idA.DeviceID()) // it leaves by itself
	m.Finish(idA.DeviceID())
	select {
	case e := <-v.Events():
		assert.Equal(t, vnic.Event{Kind: vnic.EventRemoved, VM: "vm1", ID: idA}, e)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "no event")
	}
	assert.Empty(t, m.String())
}

func TestUnplugThatIsGivenUpEndsLater(t *testing.T) {
	m := qmptest.NewMachine(3, 1)
	m.Put(idA.DeviceID(), "br0", 1, macA, idA.NetdevID())
	m.SetGuest(qmptest.Silent, 0)
	v := dialMachine(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, v.Unplug(ctx, idA), context.DeadlineExceeded)
	m.Eject(idA.DeviceID()) // the guest gets round to it
	select {
	case e := <-v.Events():
		assert.Equal(t, vnic.Event{Kind: vnic.EventRemoved, VM: "vm1", ID: idA}, e)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "no event")
	}
	assert.Empty(t, m.String(), "the backend is gone too")
}

// TestSilentQEMU: one that is stopped answers nothing, and what was asked of it
// costs no memory.
func TestSilentQEMU(t *testing.T) {
	m := qmptest.NewMachine(1, 0)
	var silent atomic.Bool
	s := qmptest.NewServer(t, func(c *qmptest.Client, r qmptest.Request) {
		if !silent.Load() {
			m.Handle(c, r)
		}
	})
	v, err := Dial(t.Context(), vnic.VM{Name: "vm1", QMP: s.Path}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer v.Close()
	silent.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = v.Status(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "status of vm vm1: ")
	require.ErrorContains(t, err, "qemu may be stopped")
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = v.List(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	v.conn.mu.Lock()
	defer v.conn.mu.Unlock()
	assert.Empty(t, v.conn.pending)
}

func TestVMGoneWhileWaiting(t *testing.T) {
	m := qmptest.NewMachine(3, 1)
	m.Put(idA.DeviceID(), "br0", 1, macA, idA.NetdevID())
	m.SetGuest(qmptest.Silent, 0)
	v := dialMachine(t, m)
	result := make(chan error, 1)
	go func() { result <- v.Unplug(context.Background(), idA) }()
	assert.Eventually(t, func() bool { return len(m.Commands()) == 1 }, 5*time.Second, time.Millisecond)
	m.Kill()
	require.ErrorIs(t, <-result, vnic.ErrVMGone)
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	held := qmptest.NewServer(t, qmptest.NewMachine(1, 0).Handle)
	first, err := DialConn(t.Context(), held.Path, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer first.Close()
	stale := qmptest.NewServer(t, nil)
	stale.Close()
	require.NoError(t, os.WriteFile(stale.Path, nil, 0o600)) // a file that nobody listens at

	for _, c := range []struct {
		name, path string
		is         error
		says       string
	}{
		{"missing", dir + "/none", vnic.ErrVMGone, "no such socket, start QEMU with `-qmp unix:" + dir + "/none,server=on,wait=off`"},
		{"stale", stale.Path, vnic.ErrVMGone, "nobody listens"},
		{"held", held.Path, vnic.ErrInUse, "another client holds the socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := Dial(ctx, vnic.VM{Name: "vm1", QMP: c.path}, slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, "vm vm1: dial qmp "+c.path+": ")
			assert.ErrorContains(t, err, c.says)
		})
	}
	_, err = Dial(t.Context(), vnic.VM{Name: "vm1", QMP: dir + "/none"}, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, os.ErrNotExist, "the host half tells by this that the process is not there")
	_, err = Dial(t.Context(), vnic.VM{Name: "vm1", QMP: stale.Path}, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	assert.ErrorContains(t, dialError("/p", &os.PathError{Err: os.ErrPermission}), "dial qmp /p: give the daemon's user write access")
}
