package orchestrator_test

import (
	"net/netip"
	"slices"
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
		{"no ports", func(q *vnic.Request) { q.Ports = nil }, ""},
		{"other labels", func(q *vnic.Request) { q.Labels = map[string]string{"k": "w"} }, ""},
		{"ports", func(q *vnic.Request) { q.Ports[0].HostPort = 81 }, "another set of published ports ([80:8080/tcp], not [81:8080/tcp])"},
		{"routes", func(q *vnic.Request) { q.Routes = nil }, "another set of routes (10.7.0.0/16 via 10.1.0.1, not none)"},
		{"bandwidth", func(q *vnic.Request) { q.Bandwidth.Ingress.Bits = 2e6 }, "another bandwidth ("},
		{"manager", func(q *vnic.Request) { q.Manager = "cni" }, "another manager (the daemon's API, not cni)"},
		{"handover", func(q *vnic.Request) { q.Handover = true }, "another place of delivery (the pod, not the guest's first namespace)"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				req := request("web", "eth0")
				req.Addresses, req.MAC, req.MTU = []netip.Addr{netip.MustParseAddr("10.1.0.7")}, mac, 1400
				req.Ports, req.Labels = []vnic.PortMapping{{HostPort: 80, Port: 8080, Protocol: vnic.TCP}}, map[string]string{"k": "v"}
				req.Routes = []vnic.Route{{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.1")}}
				req.Bandwidth.Ingress.Bits = 1e6
				a, err := r.orch.Attach(r.t.Context(), req)
				require.NoError(r.t, err)
				req.Ports = slices.Clone(req.Ports)
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
