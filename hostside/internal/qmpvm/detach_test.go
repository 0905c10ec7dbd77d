package qmpvm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
)

func TestDetachLeavesTheBackend(t *testing.T) {
	m := qmptest.NewMachine(4, 0)
	v := dialMachine(t, m)
	require.NoError(t, v.Detach(t.Context(), idA), "nothing is there")
	require.NoError(t, v.Unplug(t.Context(), idA))
	for range 2 {
		_, err := v.Plug(t.Context(), testNIC(t, 1))
		require.NoError(t, err)
		before := len(m.Commands())
		require.NoError(t, v.Detach(t.Context(), idA))
		require.NoError(t, v.Detach(t.Context(), idA), "again")
		assert.Equal(t, "netdev brfn00000000aa fds 1\n", m.String())
		require.NoError(t, v.Unplug(t.Context(), idA))
		assert.Empty(t, m.String())
		assert.Equal(t, []string{"device_del", "device_del", "netdev_del"}, m.Commands()[before:], "the device is not asked for again")
	}
}

// TestPlugAfterADetach: the backend that a detach left makes way, and the next
// unplug is about the new device.
func TestPlugAfterADetach(t *testing.T) {
	m := qmptest.NewMachine(4, 0)
	v := dialMachine(t, m)
	_, err := v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err)
	require.NoError(t, v.Detach(t.Context(), idA))
	_, err = v.Plug(t.Context(), testNIC(t, 1))
	require.NoError(t, err)
	require.NoError(t, v.Unplug(t.Context(), idA))
	assert.Empty(t, m.String())
}
