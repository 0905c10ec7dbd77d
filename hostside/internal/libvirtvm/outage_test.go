package libvirtvm

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// next returns the next event.
func next(ctx context.Context, t *testing.T, v *VM) vnic.Event {
	t.Helper()
	e, ok := event(ctx, t, v)
	require.True(t, ok, "events are closed: %v", v.err())
	return e
}

// event is next; ok is false when there are no more.
func event(ctx context.Context, t *testing.T, v *VM) (e vnic.Event, ok bool) {
	t.Helper()
	select {
	case e, ok = <-v.Events():
	case <-ctx.Done():
		require.FailNow(t, "no event came")
	}
	return e, ok
}

// awaitEnd drops events until they end.
func awaitEnd(ctx context.Context, t *testing.T, v *VM) {
	t.Helper()
	for {
		select {
		case _, ok := <-v.Events():
			if !ok {
				return
			}
		case <-ctx.Done():
			require.FailNow(t, "events are still open")
		}
	}
}

// nothingInQEMU checks that QEMU has neither device nor backend of a vNIC.
func (s *site) nothingInQEMU(t *testing.T) {
	t.Helper()
	assert.NotContains(t, s.qmp(t, "qom-list", map[string]any{"path": "/machine/peripheral"}), aliasPrefix+vnic.Prefix)
	assert.NotContains(t, s.qmp(t, "human-monitor-command", map[string]any{"command-line": "info network"}), aliasPrefix+vnic.Prefix)
}

// TestIntegrationOutage: without libvirtd calls wait, fail in the end with what to
// do, and go on when it is back; the VM is the same.
func TestIntegrationOutage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := withoutGuest(t, oneBridge)
	v := s.dial(t)
	n := s.nic(t, 1)
	slot, err := v.Plug(ctx, n)
	require.NoError(t, err)
	require.NoError(t, s.lv.Kill(ctx))

	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	_, err = v.List(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, vnic.ErrVMGone)
	require.ErrorContains(t, err, "libvirtd does not answer at "+s.lv.Socket())
	require.ErrorContains(t, err, "systemctl start libvirtd")
	_, err = Dial(ctx, s.ref(), slog.New(slog.DiscardHandler))
	require.NotErrorIs(t, err, vnic.ErrVMGone)
	require.NotErrorIs(t, err, backend.ErrNotRunning)
	require.ErrorContains(t, err, "vm vm1: libvirtd does not answer at "+s.lv.Socket())

	type answer struct {
		list []backend.Device
		err  error
	}
	waiting := make(chan answer, 1)
	go func() {
		list, err := v.List(ctx)
		waiting <- answer{list, err}
	}()
	require.NoError(t, s.lv.Restart(ctx))
	a := <-waiting
	require.NoError(t, a.err)
	assert.Equal(t, []backend.Device{{ID: n.ID, MAC: n.MAC, Slot: slot, Backend: true, Frontend: true}}, a.list)
	assert.Equal(t, vnic.Event{Kind: vnic.EventVMUp, VM: "vm1"}, next(ctx, t, v))
	_, err = v.Plug(ctx, s.nic(t, 1))
	require.NoError(t, err)
}

// TestIntegrationLibvirtdDies kills libvirtd while vNICs are plugged and unplugged,
// at moments that differ from round to round: all calls succeed, and QEMU has what
// libvirt has.
func TestIntegrationLibvirtdDies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := withGuest(t)
	v := s.dial(t)
	before := v.slots.Owners()
	_, err := v.Plug(ctx, s.nic(t, 1)) // it is there when all else goes
	require.NoError(t, err)
	for round := range 6 {
		nics := make([]backend.NIC, 6)
		for i := range nics {
			nics[i] = s.nic(t, 1)
		}
		each := func(f func(backend.NIC) error) {
			t.Helper()
			var wg sync.WaitGroup
			for _, n := range nics {
				wg.Go(func() { assert.NoError(t, f(n)) })
			}
			timer := time.NewTimer(time.Duration(rand.IntN(60)) * time.Millisecond)
			<-timer.C
			assert.NoError(t, s.lv.Kill(ctx))
			assert.NoError(t, s.lv.Restart(ctx))
			wg.Wait()
		}
		began := time.Now()
		each(func(n backend.NIC) error {
			_, err := v.Plug(ctx, n)
			return err
		})
		list, err := v.List(ctx)
		require.NoError(t, err)
		assert.Len(t, list, 1+len(nics))
		seen := map[string]bool{}
		for _, d := range list {
			assert.True(t, d.Frontend && d.Backend)
			assert.False(t, seen[d.Slot], "slot %s is used twice", d.Slot)
			seen[d.Slot] = true
		}
		plugged := time.Since(began)
		each(func(n backend.NIC) error { return v.Unplug(ctx, n.ID) })
		list, err = v.List(ctx)
		require.NoError(t, err)
		assert.Len(t, list, 1)
		t.Logf("round %d: %s, %s", round, plugged, time.Since(began)-plugged)
		if t.Failed() {
			return
		}
	}
	list, err := v.List(ctx)
	require.NoError(t, err)
	require.NoError(t, v.Unplug(ctx, list[0].ID))
	s.nothingInQEMU(t)
	assert.Equal(t, before, v.slots.Owners())
}

// TestIntegrationRemovedDuringOutage: what was lost meanwhile is told. libvirtd itself may
// end the domain when it comes back in the middle of a removal: then it is tried again.
func TestIntegrationRemovedDuringOutage(t *testing.T) {
	told := false
	for try := 1; !told && !t.Failed() && try <= 5; try++ {
		t.Run(fmt.Sprint("try", try), func(t *testing.T) { told = removedDuringOutage(t) })
	}
	assert.True(t, told || t.Failed(), "libvirtd has ended the domain each time")
}

// removedDuringOutage returns false when libvirtd has ended the domain.
func removedDuringOutage(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := withGuest(t)
	v := s.dial(t)
	gone, stays := s.nic(t, 1), s.nic(t, 1)
	for _, n := range []backend.NIC{gone, stays} {
		_, err := v.Plug(ctx, n)
		require.NoError(t, err)
	}
	s.awaitDriver(ctx, t, v)
	// libvirtd is killed with the request under way: the guest lets go without it.
	s.eject(t, gone.ID)
	require.NoError(t, s.lv.Kill(ctx))
	require.NoError(t, s.lv.Restart(ctx))
	var kinds []string
	for range 2 {
		e, ok := event(ctx, t, v)
		if !ok {
			require.ErrorIs(t, v.err(), errStopped)
			_, err := Dial(ctx, s.ref(), slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, errStopped, "it has been ended indeed")
			return false
		}
		kinds = append(kinds, fmt.Sprint(e.Kind, e.ID))
	}
	assert.ElementsMatch(t, []string{fmt.Sprint(vnic.EventRemoved, gone.ID), fmt.Sprint(vnic.EventVMUp)}, kinds)
	list, err := v.List(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1)
	return true
}

// awaitDriver returns when the guest lets go of devices.
func (s *site) awaitDriver(ctx context.Context, t *testing.T, v *VM) {
	t.Helper()
	n := s.nic(t, 1)
	_, err := v.Plug(ctx, n)
	require.NoError(t, err)
	require.NoError(t, v.Unplug(ctx, n.ID))
}

// keep has libvirtd come back when it crashes, as on hosts, until ctx ends.
// Debian's libvirtd 9.0.0 uses freed memory at times when a domain ends during
// calls and its clients then go.
func (s *site) keep(ctx context.Context, t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		assert.NoError(t, s.lv.Keep(ctx, func() { t.Log("libvirtd crashed and was started again") }))
	})
	t.Cleanup(wg.Wait)
}

// virsh has virsh destroy or start vm1. If libvirtd crashes meanwhile, the domain is
// off and then, if wanted, started once more: one half started may hang.
func (s *site) virsh(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	before, _ := s.lv.PID() // zero when it has just crashed
	_, failed := s.lv.Virsh(ctx, args...)
	if failed == nil {
		return
	}
	require.NoError(t, s.lv.Restart(ctx))
	after, err := s.lv.PID()
	require.NoError(t, err)
	require.NotEqual(t, before, after, "libvirtd runs, but: %v", failed)
	_ = s.lv.DestroyDomain(ctx, "vm1") // fails when it is off
	state, err := s.lv.Virsh(ctx, "domstate", "vm1")
	require.NoError(t, err)
	require.Equal(t, "shut off", strings.TrimSpace(state))
	if args[0] == "start" {
		_, err = s.lv.Virsh(ctx, args...)
		require.NoError(t, err)
	}
}

// TestIntegrationStarted: another run of the domain is another VM.
func TestIntegrationStarted(t *testing.T) {
	for _, c := range []struct {
		name  string
		again func(context.Context, *testing.T, *site)
	}{
		{"destroyed and started", func(ctx context.Context, t *testing.T, s *site) {
			t.Helper()
			s.keep(ctx, t)
			s.virsh(ctx, t, "destroy", "vm1")
			s.virsh(ctx, t, "start", "vm1")
		}},
		{"killed and started without libvirtd's knowledge", func(ctx context.Context, t *testing.T, s *site) {
			t.Helper()
			pid, err := s.lv.DomainPID("vm1")
			require.NoError(t, err)
			require.NotZero(t, pid)
			require.NoError(t, s.lv.Kill(ctx))
			require.NoError(t, s.lv.KillDomain(ctx, "vm1"))
			require.NoError(t, s.lv.Restart(ctx))
			require.NoError(t, s.lv.StartDomain(ctx, "vm1"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s := withoutGuest(t, oneBridge)
			v := s.dial(t)
			n := s.nic(t, 1)
			_, err := v.Plug(ctx, n)
			require.NoError(t, err)
			c.again(ctx, t, s)
			awaitEnd(ctx, t, v)
			_, err = v.List(ctx)
			require.ErrorIs(t, err, vnic.ErrVMGone)
			list, err := s.dial(t).List(ctx)
			require.NoError(t, err)
			assert.Empty(t, list)
		})
	}
}

// TestIntegrationDestroyedDuringCalls: calls that the end of the domain interrupts
// say so.
func TestIntegrationDestroyedDuringCalls(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := withoutGuest(t, oneBridge)
	s.keep(ctx, t)
	for round := range 8 {
		v := s.dial(t)
		first := s.nic(t, 1)
		_, err := v.Plug(ctx, first)
		require.NoError(t, err)
		errs := make([]error, 8)
		nics := make([]backend.NIC, len(errs))
		for i := range nics {
			nics[i] = s.nic(t, 1)
		}
		var wg sync.WaitGroup
		for i, n := range nics {
			wg.Go(func() { _, errs[i] = v.Plug(ctx, n) })
		}
		wg.Go(func() {
			assert.ErrorIs(t, v.Unplug(ctx, first.ID), vnic.ErrVMGone, "the guest of this domain never lets go")
		})
		timer := time.NewTimer(time.Duration(round) * 8 * time.Millisecond)
		<-timer.C
		if round%2 == 0 {
			s.virsh(ctx, t, "destroy", "vm1")
		} else {
			require.NoError(t, s.lv.KillDomain(ctx, "vm1"))
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				require.ErrorIs(t, err, vnic.ErrVMGone)
			}
		}
		awaitEnd(ctx, t, v)
		s.virsh(ctx, t, "start", "--paused", "vm1")
	}
}
