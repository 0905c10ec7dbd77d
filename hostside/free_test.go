package hostside

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationFreeSlots(t *testing.T) {
	h, y, _ := newTestHost(t)
	free, total, err := h.Free(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, total, free)
	assert.Equal(t, 8, total)
	_, err = h.Plug(t.Context(), testPlug())
	require.NoError(t, err)
	free, _, err = h.Free(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, total-1, free)
	_, _, err = h.Free(t.Context(), "other")
	require.ErrorIs(t, err, vnic.ErrUnknownVM)
	y.die()
	requireEvent(t, h, vnic.EventVMGone)
	_, _, err = h.Free(t.Context(), "vm")
	require.ErrorIs(t, err, vnic.ErrVMGone)
}
