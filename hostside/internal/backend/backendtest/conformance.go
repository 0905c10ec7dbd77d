package backendtest

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// Harness makes the machines that [Conformance] tests.
type Harness struct {
	// Start returns a machine with no vNIC in it and at least three free slots,
	// whose guest releases devices. It ends with the test. Required.
	Start func(t *testing.T) Machine
	// Limit bounds each wait. Default: 30 s.
	Limit time.Duration
}

// Machine is a machine under test.
type Machine struct {
	VM backend.VM // Required.
	// Files returns a tap's files, one a queue, that the backend can use.
	// Default: /dev/null.
	Files func(t *testing.T, tap string, queues int) []*os.File
	// Eject makes the guest remove a vNIC by itself. Without it that isn't tested.
	Eject func(id vnic.ID)
	// Kill ends the hypervisor. Required.
	Kill func()
}

// NIC returns a vNIC to plug, with new ID and MAC.
func (m Machine) NIC(t *testing.T, queues int) backend.NIC {
	t.Helper()
	id := vnic.NewID()
	files := m.Files
	if files == nil {
		files = nullFiles
	}
	return backend.NIC{
		ID: id, MAC: vnic.NewMAC(), MTU: 1400, Queues: queues, Tap: id.TapName(),
		Files: files(t, id.TapName(), queues),
	}
}

func nullFiles(t *testing.T, _ string, queues int) []*os.File {
	t.Helper()
	var files []*os.File
	for range queues {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return files
}

// Conformance tests what every [backend.VM] does.
func Conformance(t *testing.T, h Harness) {
	t.Helper()
	if h.Limit == 0 {
		h.Limit = 30 * time.Second
	}
	for _, c := range []struct {
		name string
		f    func(context.Context, *testing.T, Machine)
	}{
		{"a vnic comes, is listed and goes", comesAndGoes},
		{"a second plug of an id changes nothing", plugTwice},
		{"unplug of what is not there succeeds", unplugNothing},
		{"a bad nic is refused", badNIC},
		{"link", link},
		{"the last slot", lastSlot},
		{"many at once get slots of their own", manyAtOnce},
		{"plug and unplug of one id at once", oneID},
		{"a context that is over", contextOver},
		{"the guest removes a vnic", ejected},
		{"the hypervisor dies", dies},
		{"close ends the events", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), h.Limit)
			defer cancel()
			c.f(ctx, t, h.Start(t))
		})
	}
}

func comesAndGoes(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	before, err := m.VM.Status(ctx)
	require.NoError(t, err)
	n := m.NIC(t, 2)
	slot, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	assert.Regexp(t, `^[^/]+/[01][0-9a-f]$`, slot)
	for _, f := range n.Files {
		_, err := f.Stat()
		require.NoError(t, err, "the backend must leave the files open")
	}

	list, err := m.VM.List(ctx)
	require.NoError(t, err)
	assert.Equal(t, []backend.Device{{ID: n.ID, MAC: n.MAC, Slot: slot, Backend: true, Frontend: true}}, list)
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, before.SlotsUsed+1, s.SlotsUsed)
	assert.Equal(t, before.SlotsTotal, s.SlotsTotal)
	assert.Contains(t, []string{backend.HotplugACPI, backend.HotplugNative}, s.Hotplug)

	require.NoError(t, m.VM.Unplug(ctx, n.ID))
	isEmpty(ctx, t, m, before.SlotsUsed)
}

// isEmpty checks that nothing is left.
func isEmpty(ctx context.Context, t *testing.T, m Machine, used int) {
	t.Helper()
	list, err := m.VM.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, list)
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, used, s.SlotsUsed)
}

func plugTwice(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	n := m.NIC(t, 1)
	first, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	second, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	assert.Equal(t, first, second)
	list, err := m.VM.List(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

func unplugNothing(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	require.NoError(t, m.VM.Unplug(ctx, vnic.NewID()))
	n := m.NIC(t, 1)
	_, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	require.NoError(t, m.VM.Unplug(ctx, n.ID))
	require.NoError(t, m.VM.Unplug(ctx, n.ID))
}

func badNIC(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	n := m.NIC(t, 2)
	n.Files = n.Files[:1]
	_, err = m.VM.Plug(ctx, n)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, string(n.ID))
	isEmpty(ctx, t, m, s.SlotsUsed)
}

func link(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	n := m.NIC(t, 1)
	require.ErrorIs(t, m.VM.SetLink(ctx, n.ID, false), vnic.ErrNotFound)
	_, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	assert.NoError(t, m.VM.SetLink(ctx, n.ID, false))
	assert.NoError(t, m.VM.SetLink(ctx, n.ID, true))
}

func lastSlot(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	var ids []vnic.ID
	for range s.SlotsTotal - s.SlotsUsed {
		n := m.NIC(t, 1)
		_, err := m.VM.Plug(ctx, n)
		require.NoError(t, err)
		ids = append(ids, n.ID)
	}
	n := m.NIC(t, 1)
	_, err = m.VM.Plug(ctx, n)
	require.ErrorIs(t, err, vnic.ErrNoSlot)
	var full *vnic.NoSlotError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, s.SlotsTotal, full.Used)
	assert.Equal(t, s.SlotsTotal, full.Total)

	require.NoError(t, m.VM.Unplug(ctx, ids[0]))
	_, err = m.VM.Plug(ctx, n)
	require.NoError(t, err)
}

func manyAtOnce(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	n := min(20, s.SlotsTotal-s.SlotsUsed)
	nics := make([]backend.NIC, n)
	for i := range nics {
		nics[i] = m.NIC(t, 1)
	}
	slots, errs := make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range nics {
		wg.Go(func() { slots[i], errs[i] = m.VM.Plug(ctx, nics[i]) })
	}
	wg.Wait()
	seen := map[string]bool{}
	for i := range nics {
		require.NoError(t, errs[i])
		assert.False(t, seen[slots[i]], "slot %s was given twice", slots[i])
		seen[slots[i]] = true
	}
	for i := range nics {
		wg.Go(func() { errs[i] = m.VM.Unplug(ctx, nics[i].ID) })
	}
	wg.Wait()
	for i := range nics {
		require.NoError(t, errs[i])
	}
	isEmpty(ctx, t, m, s.SlotsUsed)
}

// oneID lets plugs and unplugs of one vNIC race: each must end well, and the
// state must be that of the last.
func oneID(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	n := m.NIC(t, 1)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if i%2 == 0 {
				_, errs[i] = m.VM.Plug(ctx, n)
				return
			}
			errs[i] = m.VM.Unplug(ctx, n.ID)
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, m.VM.Unplug(ctx, n.ID))
	isEmpty(ctx, t, m, s.SlotsUsed)
}

func contextOver(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err = m.VM.Plug(over, m.NIC(t, 1))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, m.VM.Unplug(over, vnic.NewID()), context.Canceled)
	isEmpty(ctx, t, m, s.SlotsUsed)
}

func ejected(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	if m.Eject == nil {
		t.Skip("this harness can't make the guest remove a vnic")
	}
	s, err := m.VM.Status(ctx)
	require.NoError(t, err)
	n := m.NIC(t, 1)
	_, err = m.VM.Plug(ctx, n)
	require.NoError(t, err)
	m.Eject(n.ID)
	e := next(ctx, t, m.VM)
	assert.Equal(t, vnic.EventRemoved, e.Kind)
	assert.Equal(t, n.ID, e.ID)
	isEmpty(ctx, t, m, s.SlotsUsed)
	_, err = m.VM.Plug(ctx, n)
	require.NoError(t, err)
}

func next(ctx context.Context, t *testing.T, vm backend.VM) vnic.Event {
	t.Helper()
	select {
	case e, ok := <-vm.Events():
		require.True(t, ok, "events are closed")
		return e
	case <-ctx.Done():
		require.FailNow(t, "no event came")
	}
	return vnic.Event{}
}

func dies(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	n := m.NIC(t, 1)
	_, err := m.VM.Plug(ctx, n)
	require.NoError(t, err)
	m.Kill()
	awaitEnd(ctx, t, m.VM)
	_, err = m.VM.Plug(ctx, m.NIC(t, 1))
	require.ErrorIs(t, err, vnic.ErrVMGone)
	_, err = m.VM.List(ctx)
	require.ErrorIs(t, err, vnic.ErrVMGone)
	_, err = m.VM.Status(ctx)
	require.ErrorIs(t, err, vnic.ErrVMGone)
	require.ErrorIs(t, m.VM.Unplug(ctx, n.ID), vnic.ErrVMGone)
	require.ErrorIs(t, m.VM.SetLink(ctx, n.ID, true), vnic.ErrVMGone)
	require.NoError(t, m.VM.Close())
}

func closed(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	require.NoError(t, m.VM.Close())
	awaitEnd(ctx, t, m.VM)
	require.NoError(t, m.VM.Close())
}

func awaitEnd(ctx context.Context, t *testing.T, vm backend.VM) {
	t.Helper()
	select {
	case e, ok := <-vm.Events():
		require.False(t, ok, "event %v instead of the end", e)
	case <-ctx.Done():
		require.FailNow(t, "events are still open")
	}
}
