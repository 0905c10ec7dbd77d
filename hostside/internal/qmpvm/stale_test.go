package qmpvm

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/vnic"
)

// TestGuestIsToldTwice has a guest power off the only slot when the next vNIC is
// there already.
func TestGuestIsToldTwice(t *testing.T) {
	m := qmptest.NewMachine(1, 0)
	v := dialMachine(t, m)
	_, err := v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err)
	require.NoError(t, v.Unplug(t.Context(), idA))

	next := testNIC(t, 1)
	next.ID = "00000000bb"
	slot, err := v.Plug(t.Context(), next)
	require.NoError(t, err)
	want := m.String()
	added := func() (n int) {
		for _, c := range m.Commands() {
			if c == "device_add" {
				n++
			}
		}
		return n
	}
	for i := range 3 {
		m.Eject(next.ID.DeviceID())
		require.Eventually(t, func() bool { return added() == 3+i && m.String() == want }, 5*time.Second, time.Millisecond, "put back")
	}
	again, err := v.Plug(t.Context(), next)
	require.NoError(t, err)
	assert.Equal(t, slot, again)
	used, total, _ := v.slots.Counts()
	assert.Equal(t, total, used)

	settle(v)
	m.Eject(next.ID.DeviceID()) // by now nothing is left of the first word
	select {
	case e := <-v.Events():
		assert.Equal(t, vnic.Event{Kind: vnic.EventRemoved, VM: "vm1", ID: next.ID}, e)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "no event")
	}
	assert.Empty(t, m.String())
}

// settle makes it long ago that devices left.
func settle(v *VM) {
	v.stale.mu.Lock()
	defer v.stale.mu.Unlock()
	for slot := range v.stale.since {
		v.stale.since[slot] = time.Now().Add(-staleFor - time.Second)
	}
}

// TestPutBackThatFails ends as a removal does.
func TestPutBackThatFails(t *testing.T) {
	m := qmptest.NewMachine(1, 0)
	v := dialMachine(t, m)
	for range 2 {
		_, err := v.Plug(t.Context(), testNIC(t, 1))
		require.NoError(t, err)
		require.NoError(t, v.Unplug(t.Context(), idA))
	}
	_, err := v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err)
	m.Fail("device_add", "GenericError", "out of memory")
	m.Eject(idA.DeviceID())
	select {
	case e := <-v.Events():
		assert.Equal(t, vnic.Event{Kind: vnic.EventRemoved, VM: "vm1", ID: idA}, e)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "no event")
	}
	assert.Empty(t, m.String())
	_, err = v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err, "the slot is free")
}
