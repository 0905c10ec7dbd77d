package orchestrator_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestInspect(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig, a vnic.Attachment)
		is   error
		text string
	}{
		{"whole", func(*rig, vnic.Attachment) {}, nil, ""},
		{"tap missing", func(r *rig, a vnic.Attachment) { r.world.DeleteTap(a.ID) }, vnic.ErrDiffers, "is missing"},
		{"not in its bridge", func(r *rig, _ vnic.Attachment) { r.world.DeleteBridge("blue") }, vnic.ErrDiffers, "not up in the bridge of network blue"},
		{"device missing", func(r *rig, a vnic.Attachment) { r.conn.Notify(func(vnic.Event) {}); r.world.Eject("vm1", a.ID) }, vnic.ErrDiffers, "has no device brf"},
		{"half gone", func(r *rig, a vnic.Attachment) {
			r.world.Fail("unplug", errBoom)
			_, err := r.orch.Detach(r.t.Context(), a.ID)
			require.Error(r.t, err)
		}, vnic.ErrDiffers, "not ready but detaching"},
		{"gone", func(r *rig, a vnic.Attachment) {
			_, err := r.orch.Detach(r.t.Context(), a.ID)
			require.NoError(r.t, err)
		}, vnic.ErrNotFound, "web/eth0 in vm1"},
		{"host silent", func(r *rig, _ vnic.Attachment) { r.world.Fail("ports", errBoom) }, errBoom, "ask host"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				c.do(r, a)
				got, err := r.orch.Inspect(r.t.Context(), a.Request.Key)
				if c.is == nil {
					require.NoError(r.t, err)
					assert.Equal(r.t, a.ID, got.ID)
					return
				}
				require.ErrorIs(r.t, err, c.is)
				assert.ErrorContains(r.t, err, c.text)
			})
		})
	}
}

// TestReady says what an attach would.
func TestReady(t *testing.T) {
	cases := []struct {
		name        string
		vm, network string
		do          func(r *rig)
		is          error
	}{
		{"yes", "vm1", "blue", func(*rig) {}, nil},
		{"no vm", "vm8", "blue", func(*rig) {}, vnic.ErrUnknownVM},
		{"no network", "vm1", "green", func(*rig) {}, vnic.ErrUnknownNetwork},
		{"vm gone", "vm1", "blue", func(r *rig) { r.world.Kill("vm1") }, vnic.ErrVMGone},
		{"no slot", "vm1", "blue", func(r *rig) { r.world.SetSlots("vm1", 0) }, vnic.ErrNoSlot},
		{"no address", "vm1", "red", func(r *rig) { // .2 to .6
			for range 5 {
				_, err := r.reserve("vm1", "red", "")
				require.NoError(r.t, err)
			}
		}, vnic.ErrPoolExhausted},
		{"an address that was given back", "vm1", "red", func(r *rig) {
			for range 5 {
				_, err := r.reserve("vm1", "red", "")
				require.NoError(r.t, err)
			}
			list, err := r.orch.Reservations(r.t.Context(), "vm1")
			require.NoError(r.t, err)
			require.NoError(r.t, r.orch.Unreserve(r.t.Context(), "vm1", "red", []netip.Addr{list[0].Address}))
		}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				c.do(r)
				before := r.leases()
				err := r.orch.Ready(r.t.Context(), c.vm, c.network)
				assert.Equal(r.t, before, r.leases())
				req := request("web", "eth0")
				req.VM, req.Network, req.Manager = c.vm, c.network, "cni"
				_, aerr := r.orch.Attach(r.t.Context(), req)
				if c.is == nil {
					require.NoError(r.t, err)
					require.NoError(r.t, aerr)
					return
				}
				require.ErrorIs(r.t, err, c.is)
				require.ErrorIs(r.t, aerr, c.is)
			})
		})
	}
}
