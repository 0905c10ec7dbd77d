package vnic_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestCodes(t *testing.T) {
	err := fmt.Errorf("attach web: %w", &vnic.NoSlotError{VM: "vm1", Used: 31, Total: 31})
	assert.Equal(t, vnic.Code("no_slot"), vnic.CodeOf(err))
	require.ErrorIs(t, err, vnic.ErrNoSlot)
	assert.Contains(t, err.Error(), "31 of 31 in use")
	assert.Contains(t, err.Error(), "brfuse topology")
	assert.Equal(t, vnic.ErrNoSlot, vnic.ErrorOf("no_slot"))
	assert.Empty(t, vnic.CodeOf(errors.New("other")))
	assert.Empty(t, vnic.CodeOf(nil))
	assert.NoError(t, vnic.ErrorOf("no such code"))
}
