package orchestrator_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestAttachDiffers(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		req := request("web", "eth0")
		req.Network, req.Queues, req.NoDefaultRoute = "red", 2, true
		req.Addresses = []netip.Addr{netip.MustParseAddr("10.2.0.3")}
		_, err := r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrConflict)
		require.EqualError(r.t, err, "attach web/eth0 in vm1: attachment "+string(a.ID)+" of this pod has another network (blue, not red), "+
			"another address (10.1.0.2 and fd00:1::2, not 10.2.0.3), another number of queues (1, not 2), "+
			"another setting of the default route (on, not off); detach it first: exists and differs")
	})
}

// TestAttachLeavesOpen attaches again without, or with another, of what was
// asked for at first.
func TestAttachLeavesOpen(t *testing.T) {
	mac := vnic.MAC{2, 0, 0, 0, 0, 1}
	cases := []struct {
		name   string
		change func(*vnic.Request)
		want   string // none: it is the same
	}{
		{"the same", func(*vnic.Request) {}, ""},
		{"an address that was leased", func(q *vnic.Request) { q.Addresses = []netip.Addr{netip.MustParseAddr("fd00:1::2")} }, ""},
		{"no address", func(q *vnic.Request) { q.Addresses = nil }, ""},
		{"no mac", func(q *vnic.Request) { q.MAC = vnic.MAC{} }, ""},
		{"no mtu", func(q *vnic.Request) { q.MTU = 0 }, ""},
		{"none of them", func(q *vnic.Request) { q.Addresses, q.MAC, q.MTU = nil, vnic.MAC{}, 0 }, ""},
		{"address", func(q *vnic.Request) { q.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.8")} }, "another address (10.1.0.7 and fd00:1::2, not 10.1.0.8)"},
		{"mac", func(q *vnic.Request) { q.MAC = vnic.MAC{2, 0, 0, 0, 0, 2} }, "another mac (02:00:00:00:00:01, not 02:00:00:00:00:02)"},
		{"mtu", func(q *vnic.Request) { q.MTU = 1300 }, "another mtu (1400, not 1300)"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				req := request("web", "eth0")
				req.Addresses, req.MAC, req.MTU = []netip.Addr{netip.MustParseAddr("10.1.0.7")}, mac, 1400
				a, err := r.orch.Attach(r.t.Context(), req)
				require.NoError(r.t, err)
				c.change(&req)
				same, err := r.orch.Attach(r.t.Context(), req)
				if c.want == "" {
					require.NoError(r.t, err)
					assert.Equal(r.t, a.ID, same.ID)
					return
				}
				require.ErrorIs(r.t, err, vnic.ErrConflict)
				require.ErrorContains(r.t, err, c.want)
			})
		})
	}
}
