package hostside

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationTapGoesBeforeItsDescriptors: the hypervisor has them until the tap
// is gone, so that closing them costs it nothing.
func TestIntegrationTapGoesBeforeItsDescriptors(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	for _, queues := range []int{1, 4} {
		p := testPlug()
		p.Queues = queues
		_, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
		y.onUnplug = func() { assert.Equal(t, before, ns.State(), "when the hypervisor closes them") }
		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
		assert.Contains(t, y.detached, p.ID)
		_, err = h.Plug(t.Context(), p)
		require.NoError(t, err, "the same again, at once")
		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	}
	assert.Equal(t, before, ns.State())
}

// TestIntegrationPlugDuringAnUnplugOfTheLastSlot has more vNICs come than there are
// slots, while the guest takes its time to let go of as many.
func TestIntegrationPlugDuringAnUnplugOfTheLastSlot(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	y.mu.Lock()
	y.slots = 2
	y.mu.Unlock()
	old := []vnic.Plug{testPlug(), testPlug()}
	for _, p := range old {
		_, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
	}
	_, err := h.Plug(t.Context(), testPlug())
	require.ErrorIs(t, err, vnic.ErrNoSlot, "nobody leaves")

	y.mu.Lock()
	y.busy = make(chan struct{})
	y.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	fresh := []vnic.Plug{testPlug(), testPlug()}
	for i := range old {
		wg.Go(func() { errs[i] = h.Unplug(t.Context(), "vm", old[i].ID) })
	}
	v, err := h.vm("vm")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		v.leaving.mu.Lock()
		defer v.leaving.mu.Unlock()
		return v.leaving.n == 2
	}, 5*time.Second, time.Millisecond)
	for i := range fresh {
		wg.Go(func() { _, errs[2+i] = h.Plug(t.Context(), fresh[i]) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = h.Plug(ctx, testPlug())
	require.ErrorIs(t, err, vnic.ErrNoSlot, "who can't wait is told so")
	close(y.busy)
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	ports, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, ports, 2)
	for _, p := range fresh {
		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	}
	assert.Equal(t, before, ns.State())
}

// TestWaitForASlotEnds bounds the wait for a device that never leaves.
func TestWaitForASlotEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vm{backend: (*connection)(nil), changed: make(chan struct{})}
		end := v.leaving.begin()
		tries := 0
		full := func(backend.VM) error { tries++; return vnic.ErrNoSlot }
		start := time.Now()
		require.ErrorIs(t, v.doInSlot(t.Context(), full), vnic.ErrNoSlot)
		assert.Equal(t, slotLimit, time.Since(start))
		assert.Equal(t, 1, tries)
		end()
		assert.Nil(t, v.leaving.next())
		require.ErrorIs(t, v.doInSlot(t.Context(), full), vnic.ErrNoSlot)
		assert.Equal(t, slotLimit, time.Since(start), "at once")
	})
}
