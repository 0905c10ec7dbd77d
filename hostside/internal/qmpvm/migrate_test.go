package qmpvm

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/vnic"
)

// sitAt returns a QEMU over a connection of its own.
func sitAt(t *testing.T, q *qmptest.QEMU) *Seat {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for { // it may take longer than a greeting's usual time to start
		s, err := DialSeat(ctx, vnic.VM{Name: "vm1", QMP: q.Path}, slog.New(slog.DiscardHandler))
		if err != nil && ctx.Err() == nil {
			continue
		}
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Close()) })
		return s
	}
}

func stateOf(t *testing.T, s *Seat) string {
	t.Helper()
	state, err := s.State(t.Context())
	require.NoError(t, err)
	return state
}

// TestIntegrationMove moves the firmware of a machine with two vNICs from one QEMU to
// another, after an attempt that fails.
func TestIntegrationMove(t *testing.T) {
	n := newTaps(t)
	v := dialQEMU(t, qmptest.StartQEMU(t, oneBridge...))
	one, two := n.nic(t, 1), n.nic(t, 2)
	_, err := v.Plug(t.Context(), one)
	require.NoError(t, err)
	_, err = v.Plug(t.Context(), two)
	require.NoError(t, err)
	from := v.Seat()
	assert.Equal(t, StatePrelaunch, stateOf(t, from))
	require.NoError(t, from.Resume(t.Context()))
	assert.Equal(t, StateRunning, stateOf(t, from))
	devices, err := from.Devices(t.Context())
	require.NoError(t, err)
	require.Len(t, devices, 2)

	bare := sitAt(t, qmptest.StartQEMU(t, append(oneBridge, "-incoming", "defer")...))
	require.NoError(t, from.Prepare(t.Context(), bare))
	_, err = from.MoveTo(t.Context(), bare)
	require.ErrorContains(t, err, "migration failed", "without the vNICs its state doesn't fit")
	assert.Equal(t, StateRunning, stateOf(t, from))

	to := sitAt(t, qmptest.StartQEMU(t, append(oneBridge, "-incoming", "defer")...))
	assert.Equal(t, StateWaiting, stateOf(t, to))
	for _, nic := range []struct {
		id     vnic.ID
		queues int
	}{{one.ID, 1}, {two.ID, 2}} {
		other := n.nic(t, nic.queues)
		other.ID = nic.id
		require.NoError(t, to.Plug(t.Context(), devices[nic.id], other))
	}
	require.NoError(t, from.Prepare(t.Context(), to))
	st, err := from.MoveTo(t.Context(), to)
	require.NoError(t, err)
	assert.True(t, st.Completed())
	assert.Contains(t, []string{StateLeft, StateLeaving}, stateOf(t, from), "it gets there in a moment")
	assert.Equal(t, StatePaused, stateOf(t, to), "as it was started with -S")
	require.NoError(t, to.Resume(t.Context()))
	assert.Equal(t, StateRunning, stateOf(t, to))
	there, err := to.Devices(t.Context())
	require.NoError(t, err)
	assert.Equal(t, devices, there)
	require.NoError(t, to.Announce(t.Context()))
	require.NoError(t, from.Quit(t.Context()))
	<-v.conn.Done()
}

// TestIntegrationMoveCancelled has a context end a migration.
func TestIntegrationMoveCancelled(t *testing.T) {
	needRoot(t)
	from := sitAt(t, qmptest.StartQEMU(t, oneBridge...))
	require.NoError(t, from.Resume(t.Context()))
	to := sitAt(t, qmptest.StartQEMU(t, append(oneBridge, "-incoming", "defer")...))
	require.NoError(t, from.Prepare(t.Context(), to))
	require.NoError(t, from.do(t.Context(), "migrate-set-parameters", args{"max-bandwidth": 1000}, nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := from.MoveTo(ctx, to)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, StateRunning, stateOf(t, from))
	st, err := from.Cancel(t.Context())
	require.NoError(t, err)
	assert.Equal(t, migrationCancelled, st.Status, "to cancel again does nothing")
}

func TestIntegrationMachine(t *testing.T) {
	needRoot(t)
	machine := func(args ...string) Machine {
		m, err := sitAt(t, qmptest.StartQEMU(t, args...)).Machine(t.Context())
		require.NoError(t, err)
		return m
	}
	a := machine(oneBridge...)
	require.NoError(t, a.Compare(machine(append(oneBridge, "-incoming", "defer")...)))
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"type", []string{"-M", "pc"}, []string{"machine type pc-i440fx-", "not pc-q35-"}},
		{"processors", append(oneBridge, "-smp", "2"), []string{"cpus 2, not 1"}},
		{"memory", append(oneBridge, "-m", "80"), []string{"bytes of memory 83886080, not 67108864"}},
		{"less", oneBridge[:4], []string{"device br1: none, not pcie-pci-bridge at rp1, device 00.0"}},
		{"more", append(oneBridge, "-device", "virtio-rng-pci,id=rng,bus=br1,addr=1f"), []string{"device rng: virtio-rng-pci at br1, device 1f.0, not none"}},
		{"nameless", append(oneBridge, "-device", "virtio-rng-pci"), []string{"devices without an id virtio-rng-pci, not "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := a.Compare(machine(c.args...))
			require.ErrorIs(t, err, vnic.ErrDiffers)
			for _, s := range c.says {
				require.ErrorContains(t, err, s)
			}
			assert.ErrorContains(t, err, "-incoming defer")
		})
	}
}

func TestIntegrationSeatPID(t *testing.T) {
	q := qmptest.StartQEMU(t, oneBridge...)
	s := sitAt(t, q)
	pid, err := s.PID()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid, "this test listened for it")
}

// TestDevicesLikeTheirs asks QEMU for what a device was made with, and leaves out what
// it doesn't know.
func TestDevicesLikeTheirs(t *testing.T) {
	m := qmptest.NewMachine(4, 1)
	v := dialMachine(t, m)
	m.Put("brf00000000aa", "br0", 3, macA, "brfn00000000aa")
	devices, err := v.Seat().Devices(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[vnic.ID]Device{idA: {ID: idA, args: args{
		"driver": "virtio-net-pci", "id": "brf00000000aa", "netdev": "brfn00000000aa", "bus": "br0", "addr": "3.0", "mac": macA,
	}}}, devices)
}
