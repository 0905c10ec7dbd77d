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

func TestTakenError(t *testing.T) {
	err := fmt.Errorf("attach web: %w", &vnic.TakenError{What: "address 10.9.0.7", Why: "is leased to vm1/web/eth0; choose another", Err: vnic.ErrAddressTaken})
	assert.Equal(t, vnic.Code("address_taken"), vnic.CodeOf(err))
	require.ErrorIs(t, err, vnic.ErrAddressTaken)
	require.NotErrorIs(t, err, vnic.ErrPortTaken)
	assert.EqualError(t, err, "attach web: address 10.9.0.7 is leased to vm1/web/eth0; choose another: address taken")
}
