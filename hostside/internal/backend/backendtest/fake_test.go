package backendtest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

func TestFakeConforms(t *testing.T) {
	Conformance(t, Harness{Start: func(*testing.T) Machine {
		f := NewFake("vm1", 24)
		return Machine{VM: f, Eject: f.Eject, Kill: f.Kill}
	}})
}

func TestFakeString(t *testing.T) {
	f := NewFake("vm1", 2)
	f.Put(backend.Device{ID: "00000000aa", Backend: true})
	n := Machine{}.NIC(t, 1)
	n.ID, n.MAC, n.Tap = "00000000bb", vnic.MAC{2, 0, 0, 0, 0, 1}, "brf00000000bb"
	_, err := f.Plug(t.Context(), n)
	require.NoError(t, err)
	require.NoError(t, f.SetLink(t.Context(), n.ID, false))
	assert.Equal(t, "vnic 00000000aa backend only\n"+
		"vnic 00000000bb slot br1/01 mac 02:00:00:00:00:01 mtu 1400 queues 1 tap brf00000000bb vhost false link down\n", f.String())
}

func TestFakeFail(t *testing.T) {
	f, boom := NewFake("vm1", 2), errors.New("boom")
	f.Fail("Unplug", boom)
	require.ErrorIs(t, f.Unplug(t.Context(), "00000000aa"), boom)
	require.NoError(t, f.Unplug(t.Context(), "00000000aa"), "a failure is for one call")
}
