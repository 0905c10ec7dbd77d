package orchestrator_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func (r *rig) reserve(vm, network, want string) (string, error) {
	var a netip.Addr
	if want != "" {
		a = addr(want)
	}
	p, err := r.orch.Reserve(r.t.Context(), vm, network, a, false)
	return p.String(), err
}

func (r *rig) reserved(vm string) []string {
	r.t.Helper()
	list, err := r.orch.Reservations(r.t.Context(), vm)
	require.NoError(r.t, err)
	got := []string{}
	for _, v := range list {
		assert.False(r.t, v.Since.IsZero())
		got = append(got, v.VM+" "+v.Network+" "+v.Address.String())
	}
	return got
}

func TestReserve(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		got, err := r.reserve("vm1", "blue", "")
		require.NoError(r.t, err)
		assert.Equal(r.t, "10.1.0.2/24", got)
		six, err := r.orch.Reserve(ctx, "vm1", "blue", netip.Addr{}, true)
		require.NoError(r.t, err)
		assert.Equal(r.t, "fd00:1::2/64", six.String())
		for range 2 {
			got, err = r.reserve("vm1", "blue", "10.1.0.9")
			require.NoError(r.t, err)
			assert.Equal(r.t, "10.1.0.9/24", got)
		}
		assert.Equal(r.t, []string{"vm1 blue 10.1.0.2", "vm1 blue 10.1.0.9", "vm1 blue fd00:1::2"}, r.reserved("vm1"))
		assert.Empty(r.t, r.reserved("vm2"))
		a := r.attach("web", "eth0")
		assert.Equal(r.t, "[10.1.0.3/24 fd00:1::3/64]", fmt.Sprint(a.Leases), "reserved addresses are not free")

		require.NoError(r.t, r.orch.Unreserve(ctx, "vm1", "blue", []netip.Addr{addr("10.1.0.2"), addr("10.1.0.3"), addr("10.1.0.77"), six.Addr()}))
		assert.Equal(r.t, []string{"vm1 blue 10.1.0.9"}, r.reserved("vm1"), "10.1.0.3 is leased, not reserved")
		got, err = r.reserve("vm1", "blue", "")
		require.NoError(r.t, err)
		assert.Equal(r.t, "10.1.0.2/24", got, "no quarantine for what was on no wire")
	})
}

func TestReserveRefuses(t *testing.T) {
	inRig(t, func(r *rig) {
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm2")))
		_, err := r.reserve("vm2", "blue", "10.1.0.9")
		require.NoError(r.t, err)
		r.attach("web", "eth0")
		cases := []struct {
			name, vm, network, want string
			is                      error
			text                    string
		}{
			{"no vm", "vm8", "blue", "", vnic.ErrUnknownVM, "reserve address for vm vm8: vm vm8 is not registered"},
			{"no network", "vm1", "green", "", vnic.ErrUnknownNetwork, "network green does not exist"},
			{"outside", "vm1", "blue", "10.2.0.2", vnic.ErrAddressOutside, "choose one in it"},
			{"gateway", "vm1", "blue", "10.1.0.1", vnic.ErrAddressTaken, "is the gateway"},
			{"leased", "vm1", "blue", "10.1.0.2", vnic.ErrAddressTaken, "leased to vm1/web/eth0"},
			{"reserved", "vm1", "blue", "10.1.0.9", vnic.ErrAddressTaken, "reserved for vm vm2"},
			{"mapped", "vm1", "blue", "::ffff:10.1.0.8", vnic.ErrInvalid, "plain"},
		}
		for _, c := range cases {
			_, err := r.reserve(c.vm, c.network, c.want)
			require.ErrorIs(r.t, err, c.is, c.name)
			require.ErrorContains(r.t, err, c.text, c.name)
		}
		_, err = r.orch.Reserve(r.t.Context(), "vm1", "red", netip.Addr{}, true)
		require.ErrorIs(r.t, err, vnic.ErrInvalid)
		require.ErrorContains(r.t, err, "it has no IPv6 subnet")
		require.NoError(r.t, r.orch.Unreserve(r.t.Context(), "vm1", "blue", []netip.Addr{addr("10.1.0.9")}))
		assert.Equal(r.t, []string{"vm2 blue 10.1.0.9"}, r.reserved(""), "another vm's reservation")
	})
}

// TestAttachTakesReservedAddressOver: Docker's attachments of that VM only.
func TestAttachTakesReservedAddressOver(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		r.world.Boot("vm2")
		require.NoError(r.t, r.orch.AddVM(ctx, vm("vm2")))
		synctest.Wait()
		_, err := r.reserve("vm1", "blue", "10.1.0.9")
		require.NoError(r.t, err)
		want := []netip.Addr{addr("10.1.0.9")}

		req := request("web", "eth0")
		req.Addresses, req.Manager = want, "cni"
		_, err = r.orch.Attach(ctx, req)
		require.ErrorIs(r.t, err, vnic.ErrAddressTaken)
		req = handover()
		req.Addresses, req.VM = want, "vm2"
		_, err = r.orch.Attach(ctx, req)
		require.ErrorIs(r.t, err, vnic.ErrAddressTaken)

		req.VM, req.MAC = "vm1", vnic.MAC{2, 0, 0, 0, 0, 1}
		other := request("web", "eth0")
		other.MAC = req.MAC
		_, err = r.orch.Attach(ctx, other)
		require.NoError(r.t, err)
		_, err = r.orch.Attach(ctx, req)
		require.ErrorIs(r.t, err, vnic.ErrAddressTaken)
		assert.Equal(r.t, []string{"vm1 blue 10.1.0.9"}, r.reserved(""), "an attach that is refused takes nothing over")

		req.MAC = vnic.MAC{}
		a, err := r.orch.Attach(ctx, req)
		require.NoError(r.t, err)
		assert.Equal(r.t, "10.1.0.9", a.Leases[0].Addr().String())
		assert.Empty(r.t, r.reserved(""))
		require.NoError(r.t, r.orch.Unreserve(ctx, "vm1", "blue", want), "Docker gives it back, too")
		_, err = r.reserve("vm1", "blue", "10.1.0.9")
		require.ErrorIs(r.t, err, vnic.ErrAddressTaken, "it is the attachment's")
	})
}

func TestReservationsOfAVMAndANetwork(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		require.NoError(r.t, r.orch.AddVM(ctx, vm("vm2")))
		for i := range 3 {
			_, err := r.reserve("vm2", "blue", fmt.Sprintf("10.1.0.%d", 10+i))
			require.NoError(r.t, err)
		}
		err := r.orch.RemoveNetwork(ctx, "blue")
		require.ErrorIs(r.t, err, vnic.ErrInUse)
		require.ErrorContains(r.t, err, "its address 10.1.0.10 is reserved for vm vm2")
		require.NoError(r.t, r.orch.RemoveVM(ctx, "vm2", false))
		assert.Empty(r.t, r.reserved(""))
		require.NoError(r.t, r.orch.RemoveNetwork(ctx, "blue"))
	})
}

func TestQuota(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		_, err := r.orch.CreateNetwork(ctx, vnic.Network{Name: "wide", Subnets: prefixes("10.16.0.0/16")})
		require.NoError(r.t, err)
		r.attach("web", "eth0")
		for range orchestrator.MaxPerVM - 1 {
			_, err := r.reserve("vm1", "wide", "")
			require.NoError(r.t, err)
		}
		_, err = r.reserve("vm1", "wide", "")
		require.ErrorIs(r.t, err, vnic.ErrForbidden)
		require.ErrorContains(r.t, err, "vm vm1 has 1024 attachments and reserved addresses")
		require.ErrorIs(r.t, r.orch.Ready(ctx, "vm1", "blue"), vnic.ErrForbidden)
		_, err = r.orch.Attach(ctx, handover())
		require.ErrorIs(r.t, err, vnic.ErrForbidden)
		r.attach("db", "eth0") // the daemon's API is not limited
		require.NoError(r.t, r.orch.RemoveVM(ctx, "vm1", true))
		r.leasesGone()
	})
}

// leasesGone checks that nothing is held.
func (r *rig) leasesGone() {
	r.t.Helper()
	require.Empty(r.t, r.leases())
}

// TestGCOfPromises finds what only a damaged store has.
func TestGCOfPromises(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		_, err := r.reserve("vm1", "blue", "10.1.0.9")
		require.NoError(r.t, err)
		_, err = r.orch.Attach(ctx, publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		clean := r.leases()
		lease := map[string]any{"network": "blue", "address": "10.1.0.8", "vm": "vm9"}
		put := map[string]any{
			"ipam/reserved/vm9/blue/10.1.0.8": vnic.Reservation{VM: "vm9", Network: "blue", Address: addr("10.1.0.8")},
			"ipam/lease/blue/10.1.0.8":        lease,
		}
		_, err = r.store.Update(ctx, func(tx store.Tx) error {
			for k, v := range put {
				b, err := json.Marshal(v)
				if err != nil {
					return err
				}
				if err := tx.Put(k, b); err != nil {
					return err
				}
			}
			return tx.Put("port/tcp/9090/any", []byte("00000000aa"))
		})
		require.NoError(r.t, err)
		want := []string{"address 10.1.0.8 of network blue reserved for an unknown vm vm9", "port/tcp/9090/any published by no attachment"}
		for _, dry := range []bool{true, false} {
			got, err := r.orch.GC(ctx, dry)
			require.NoError(r.t, err)
			assert.Equal(r.t, want, got)
		}
		assert.Equal(r.t, clean, r.leases())
		got, err := r.orch.GC(ctx, false)
		require.NoError(r.t, err)
		assert.Empty(r.t, got)
	})
}
