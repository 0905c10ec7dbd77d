package orchestrator_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

func TestCreateNetworkRefused(t *testing.T) {
	cases := []struct {
		name string
		n    vnic.Network
		want string
		is   error
	}{
		{
			"invalid",
			vnic.Network{Name: "green"},
			"create network green: no subnet: invalid argument", vnic.ErrInvalid,
		},
		{
			"overlap",
			vnic.Network{Name: "green", Subnets: prefixes("10.1.0.128/25")},
			"create network green: subnet 10.1.0.128/25 overlaps 10.1.0.0/24 of network blue; choose another: in use", vnic.ErrInUse,
		},
		{
			"bridge",
			vnic.Network{Name: "green", Subnets: prefixes("10.3.0.0/24"), Bridge: "bf-red", External: true},
			"create network green: bridge bf-red is that of network red; choose another: in use", vnic.ErrInUse,
		},
		{
			"a word of vm add's",
			vnic.Network{Name: vnic.AllNetworks, Subnets: prefixes("10.3.0.0/24")},
			"create network all: \"all\" means something else to `brfuse vm add --guest-network`; choose another name: invalid argument", vnic.ErrInvalid,
		},
		{
			"other subnets",
			vnic.Network{Name: "red", Subnets: prefixes("10.3.0.0/24")},
			"create network red: its subnets: [10.2.0.0/29], not [10.3.0.0/24]; remove it first by `brfuse network rm red`: exists and differs",
			vnic.ErrConflict,
		},
		{
			"other gateway",
			vnic.Network{Name: "red", Subnets: prefixes("10.2.0.0/29"), Gateways: []netip.Addr{netip.MustParseAddr("10.2.0.6")}},
			"create network red: its gateways: [10.2.0.1], not [10.2.0.6]; remove it first by `brfuse network rm red`: exists and differs",
			vnic.ErrConflict,
		},
		{
			"other mtu",
			vnic.Network{Name: "red", Subnets: prefixes("10.2.0.0/29"), MTU: 9000},
			"create network red: its mtu: 1500, not 9000; remove it first by `brfuse network rm red`: exists and differs", vnic.ErrConflict,
		},
		{
			"other masquerading",
			vnic.Network{Name: "red", Subnets: prefixes("10.2.0.0/29"), Masquerade: true},
			"create network red: its masquerading: off, not on; remove it first by `brfuse network rm red`: exists and differs", vnic.ErrConflict,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				_, err := r.orch.CreateNetwork(r.t.Context(), c.n)
				require.EqualError(r.t, err, c.want)
				require.ErrorIs(r.t, err, c.is)
				assert.Equal(r.t, empty, r.world.String())
			})
		})
	}
}

// Networks of before there were kinds are bridges.
func TestNetworkWithoutKind(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.store.Update(r.t.Context(), func(tx store.Tx) error {
			return tx.Put("network/blue", []byte(`{"name":"blue","bridge":"bf-blue","subnets":["10.1.0.0/24","fd00:1::/64"],"gateways":["10.1.0.1","fd00:1::1"],"masquerade":false,"mtu":1500}`))
		})
		require.NoError(r.t, err)
		r.restart()
		nets, err := r.orch.Networks(r.t.Context())
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.KindBridge, nets[0].Kind)
		_, err = r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")})
		require.NoError(r.t, err)
	})
}

func TestAttachWithoutAddresses(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "bare", Unaddressed: true})
		require.NoError(r.t, err)
		req := request("web", "eth0")
		req.Network = "bare"
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.PhaseReady, a.Phase)
		assert.Empty(r.t, a.Leases)
		assert.Empty(r.t, a.Routes())
		assert.Contains(r.t, r.world.String(), "vm1: pod web: eth0 "+a.MAC.String()+" up")
		assert.NotContains(r.t, r.leases(), "ipam/lease/")
		again, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, a.ID, again.ID)

		req = request("db", "eth0")
		req.Network, req.Addresses = "bare", []netip.Addr{netip.MustParseAddr("10.1.0.7")}
		_, err = r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrAddressOutside)
		require.ErrorContains(r.t, err, "address 10.1.0.7: the network is one without addresses; ask for none")

		r.restart()
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		_, err = r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		require.NoError(r.t, r.orch.RemoveNetwork(r.t.Context(), "bare"))
		r.nothingLeft()
	})
}

func TestCreateNetworkAgain(t *testing.T) {
	inRig(t, func(r *rig) {
		calls := r.world.Calls("setnetwork")
		_, err := r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "red", Subnets: prefixes("10.2.0.0/29")})
		require.NoError(r.t, err)
		assert.Equal(r.t, calls+1, r.world.Calls("setnetwork"), "it is made sure of")
	})
}

func TestCreateNetworkFails(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Hang("setnetwork")
		_, err := r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "green", Subnets: prefixes("10.3.0.0/24")})
		require.EqualError(r.t, err, "create network green: host: no answer within 15s: context deadline exceeded")
		nets, err := r.orch.Networks(r.t.Context())
		require.NoError(r.t, err)
		assert.Len(r.t, nets, 2)
	})
}

func TestRemoveNetwork(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("db", "eth0")
		a := r.attach("web", "eth0")
		err := r.orch.RemoveNetwork(r.t.Context(), "blue")
		require.ErrorIs(r.t, err, vnic.ErrInUse)
		require.ErrorContains(r.t, err, "remove network blue: the network has 2 attachments, such as ")
		_, err = r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		err = r.orch.RemoveNetwork(r.t.Context(), "blue")
		require.ErrorContains(r.t, err, "of pod db; detach it first: in use")
		_, err = r.orch.DetachKey(r.t.Context(), request("db", "eth0").Key)
		require.NoError(r.t, err)

		// A removal that fails half-way keeps attaches out, and can be repeated.
		r.world.Fail("removenetwork", errBoom)
		require.EqualError(r.t, r.orch.RemoveNetwork(r.t.Context(), "blue"), "remove network blue: host: boom")
		_, err = r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.ErrorIs(r.t, err, vnic.ErrUnknownNetwork)
		_, err = r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")})
		require.ErrorContains(r.t, err, "it is being removed; finish that by `brfuse network rm blue`: exists and differs")
		r.world.Fail("removenetwork", nil)
		require.NoError(r.t, r.orch.RemoveNetwork(r.t.Context(), "blue"))
		require.ErrorIs(r.t, r.orch.RemoveNetwork(r.t.Context(), "blue"), vnic.ErrUnknownNetwork)
		assert.Equal(r.t, "network red on bf-red", r.world.String())

		// The next network of that name has a pool that was never used.
		_, err = r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24")})
		require.NoError(r.t, err)
		assert.Equal(r.t, "10.1.0.2/24", r.attach("web", "eth0").Leases[0].String())
	})
}

func TestRemoveNetworkGoesOnAfterRestart(t *testing.T) {
	inRig(t, func(r *rig) {
		r.conn.CrashAt("before removenetwork", 0)
		require.Error(r.t, r.orch.RemoveNetwork(r.t.Context(), "red"))
		r.restart()
		assert.Equal(r.t, "network blue on bf-blue", r.world.String())
	})
}
