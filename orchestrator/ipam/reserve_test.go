package ipam_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// reserve keeps an address for vm1 and prints it.
func (r *rig) reserve(want string, ipv6 bool) (string, error) {
	r.t.Helper()
	var a netip.Addr
	if want != "" {
		a = netip.MustParseAddr(want)
	}
	var p netip.Prefix
	err := r.update(func(tx store.Tx) (err error) {
		p, err = r.pool.Reserve(tx, r.net, "vm1", a, ipv6)
		return err
	})
	return p.String(), err
}

func (r *rig) unreserve(vm, a string) {
	r.t.Helper()
	require.NoError(r.t, r.update(func(tx store.Tx) error { return r.pool.Unreserve(tx, vm, "blue", netip.MustParseAddr(a)) }))
}

func (r *rig) room() error {
	return r.store.View(r.t.Context(), func(tx store.ReadTx) error { return r.pool.Room(tx, r.net) })
}

// TestReserveGoesBeforeQuarantine: an address that was on no wire is leased at
// once, before one that was and before those never used.
func TestReserveGoesBeforeQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 30*time.Second, "10.1.0.0/29", "fd00::/64")
		require.Equal(t, "10.1.0.2/29 fd00::2/64 ", r.mustTake(1))
		r.free(1)
		pass(10 * time.Second)
		got, err := r.reserve("", false)
		require.NoError(t, err)
		assert.Equal(t, "10.1.0.3/29", got)
		r.unreserve("vm2", "10.1.0.3")
		r.unreserve("vm1", "10.1.0.9")
		assert.Equal(t, "10.1.0.4/29 fd00::3/64 ", r.mustTake(2), "it is not vm2's to give back")
		r.unreserve("vm1", "10.1.0.3")
		assert.Equal(t, "10.1.0.3/29 fd00::4/64 ", r.mustTake(3))
		got, err = r.reserve("", true)
		require.NoError(t, err)
		assert.Equal(t, "fd00::5/64", got)
	})
}

func TestTakeOver(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/29")
	_, err := r.reserve("10.1.0.5", false)
	require.NoError(t, err)
	_, err = r.take(1, "10.1.0.5")
	require.ErrorIs(t, err, vnic.ErrAddressTaken)
	want := []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.1.0.6")}
	require.NoError(t, r.update(func(tx store.Tx) error {
		if err := r.pool.TakeOver(tx, "vm1", "blue", want); err != nil {
			return err
		}
		_, err := r.pool.Take(tx, r.net, owner(1), want[:1])
		return err
	}))
	r.unreserve("vm1", "10.1.0.5") // it is an attachment's now
	leases := r.leases()
	require.Len(t, leases, 1)
	assert.Equal(t, owner(1), leases[0].Owner)
	r.free(1)
	assert.Empty(t, r.leases())
}

// TestRoomSeesWhatTakeWould at every fill of a pool.
func TestRoomSeesWhatTakeWould(t *testing.T) {
	r := newRig(t, time.Hour, "10.1.0.0/29", "fd00::/64")
	for i := range 5 {
		require.NoError(t, r.room(), i)
		if i%2 == 0 {
			r.mustTake(i)
			continue
		}
		_, err := r.reserve("", false)
		require.NoError(t, err)
	}
	err := r.room()
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	require.ErrorContains(t, err, "network blue: every address of 10.1.0.0/29 is leased")
	_, err = r.take(9)
	require.ErrorIs(t, err, vnic.ErrPoolExhausted)
	require.ErrorIs(t, r.room(), vnic.ErrPoolExhausted, "the pointer is at its end")
	r.free(0)
	require.NoError(t, r.room(), "in quarantine, but there is nothing else")
	r.mustTake(9)
}

func TestReservationsAreOfTheirVM(t *testing.T) {
	r := newRig(t, 0, "10.1.0.0/24")
	for i, vm := range []string{"vm1", "vm10", "vm1"} {
		require.NoError(t, r.update(func(tx store.Tx) error {
			_, err := r.pool.Reserve(tx, r.net, vm, netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", 10+i)), false)
			return err
		}))
	}
	require.NoError(t, r.store.View(t.Context(), func(tx store.ReadTx) error {
		for vm, want := range map[string]int{"vm1": 2, "vm10": 1, "": 3} {
			list, err := r.pool.Reservations(tx, vm)
			require.NoError(t, err)
			assert.Len(t, list, want, vm)
		}
		return nil
	}))
	for _, l := range r.leases() {
		assert.NotEmpty(t, l.VM)
	}
}
