package orchestrator_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestPoolIsFilled(t *testing.T) {
	inPool(t, 6, 8, func(r *rig) {
		r.settled()
		assert.Equal(r.t, vnic.PoolStatus{
			Pool:   vnic.Pool{VM: "vm1", Network: "blue", Low: 6, High: 8, Idle: vnic.DefaultPoolIdle, Queues: 1},
			Parked: 6,
		}, r.status())
		assert.Empty(r.t, r.all(), "a parked vnic is no attachment")
		assert.NotContains(r.t, r.leases(), "ipam/lease/", "and has no address")
	})
}

func TestPoolIsFilledFourAtATime(t *testing.T) {
	inRig(t, func(r *rig) {
		goOn := make(chan struct{})
		r.world.Before("plug", func(context.Context) error { <-goOn; return nil })
		r.setPool(10, 10)
		assert.Equal(r.t, 4, r.world.Calls("plug"))
		assert.Equal(r.t, 4, r.status().Filling)
		close(goOn)
		synctest.Wait()
		r.settled()
	})
}

func TestSetPoolErrors(t *testing.T) {
	cases := []struct {
		name string
		pool vnic.Pool
		want string
		is   error
	}{
		{
			"low above high",
			vnic.Pool{VM: "vm1", Network: "blue", Low: 3, High: 2},
			"set pool: pool of 3 to 2 vnics: the low mark is from 0 to the high one: invalid argument", vnic.ErrInvalid,
		},
		{
			"unknown vm",
			vnic.Pool{VM: "vm9", Network: "blue", High: 2},
			"set pool vm9/blue: vm vm9 is not registered; see `brfuse vm add`: unknown vm", vnic.ErrUnknownVM,
		},
		{
			"unknown network",
			vnic.Pool{VM: "vm1", Network: "green", High: 2},
			"set pool vm1/green: network green does not exist; see `brfuse network create`: unknown network", vnic.ErrUnknownNetwork,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				err := r.orch.SetPool(r.t.Context(), c.pool)
				require.EqualError(r.t, err, c.want)
				require.ErrorIs(r.t, err, c.is)
			})
		})
	}
}

// TestWarmAttach takes a parked vNIC, with two transactions and without a plug.
func TestWarmAttach(t *testing.T) {
	inPool(t, 2, 4, func(r *rig) {
		r.world.Swift("vm1")
		counted := &countingStore{Store: r.store}
		r.store = counted
		r.restart()
		r.setPool(0, 4)
		first := r.vnics()[0]
		r.world.Before("move", func(context.Context) error { time.Sleep(20 * time.Millisecond); return nil }) //nolint:forbidigo // as long as it takes
		counted.updates.Store(0)
		counted.views.Store(0)
		a := r.attach("web", "eth0")
		synctest.Wait()
		assert.Equal(r.t, int64(2), counted.updates.Load())
		assert.Equal(r.t, int64(1), counted.views.Load(), "in the background: what the pool lacks")
		assert.Equal(r.t, 2, r.world.Calls("plug"))
		assert.Zero(r.t, r.world.Calls("prepare"))
		assert.Zero(r.t, r.world.Calls("configure"), "the port was open when the guest announced it")
		assert.Equal(r.t, 1, r.world.Calls("unpark"))
		assert.Equal(r.t, 1, r.world.Calls("move"))
		assert.Equal(r.t, []string{"appear", "lease", "move", "total", "unpark"}, stepNames(a))
		assert.Equal(r.t, first.ID, a.Device)
		assert.Equal(r.t, first.MAC, a.MAC)
		assert.Equal(r.t, first.Slot, a.Slot)
		assert.Equal(r.t, first.GuestPCI, a.GuestPCI)
		assert.NotEqual(r.t, a.Device, a.ID)
		r.settled()
		st := r.status()
		assert.Equal(r.t, []int{1, 1}, []int{st.Parked, st.InUse})
		assert.Equal(r.t, []uint64{1, 0}, []uint64{st.Hits, st.Misses})
		r.setPool(2, 4)
		r.settled()
	})
}

// TestWarmAttachAnnouncesAgain has the port be open only after the guest
// announced the pod's addresses.
func TestWarmAttachAnnouncesAgain(t *testing.T) {
	inPool(t, 1, 4, func(r *rig) {
		r.world.Swift("vm1")
		r.world.Before("unpark", func(context.Context) error { time.Sleep(20 * time.Millisecond); return nil }) //nolint:forbidigo // as long as it takes
		r.attach("web", "eth0")
		assert.Equal(r.t, 1, r.world.Calls("configure"))
	})
}

// TestDetachParks gives the vNIC of a cold attach to the pool, and takes it again.
func TestDetachParks(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.setPool(0, 2)
		counted := &countingStore{Store: r.store}
		r.store = counted
		r.restart()
		synctest.Wait()
		r.world.Soil("vm1", a.ID, "xdp", false)
		counted.updates.Store(0)
		got := r.detach(a)
		synctest.Wait()
		assert.Equal(r.t, int64(2), counted.updates.Load())
		assert.Empty(r.t, got.LastError)
		assert.Equal(r.t, []string{"park", "retrieve", "total"}, stepNames(got))
		assert.Zero(r.t, r.world.Calls("unplug"))
		assert.Equal(r.t, []vnic.ID{a.ID}, r.parked())
		assert.NotContains(r.t, r.leases(), "ipam/lease/")
		r.settled()

		b := r.attach("db", "eth0")
		assert.Equal(r.t, a.ID, b.Device)
		assert.NotEqual(r.t, a.ID, b.ID, "ids of attachments are never used twice")
		assert.Equal(r.t, a.MAC, b.MAC)
		assert.Equal(r.t, 1, r.world.Calls("plug"))
		synctest.Wait()
		r.settled()
		_, err := r.orch.Get(r.t.Context(), a.ID)
		require.ErrorIs(r.t, err, vnic.ErrNotFound)
		r.detach(vnic.Attachment{ID: a.ID})
		assert.Equal(r.t, "vm1/db/eth0 ready", r.list(), "the first attachment's id is not the second's")
		r.detach(b)
		r.settled()
		require.NoError(r.t, r.orch.RemovePool(r.t.Context(), "vm1", "blue"))
		r.nothingLeft()
	})
}

// TestColdBesideThePool has requests that no parked vNIC fits.
func TestColdBesideThePool(t *testing.T) {
	cases := []struct {
		name string
		set  func(*vnic.Request)
	}{
		{"mac", func(q *vnic.Request) { q.MAC = vnic.MAC{2, 0, 0x5e, 0, 0x53, 1} }},
		{"queues", func(q *vnic.Request) { q.Queues = 2 }},
		{"mtu", func(q *vnic.Request) { q.MTU = 1400 }},
		{"network", func(q *vnic.Request) { q.Network = "red" }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inPool(t, 1, 4, func(r *rig) {
				req := request("web", "eth0")
				c.set(&req)
				a, err := r.orch.Attach(r.t.Context(), req)
				require.NoError(r.t, err)
				assert.Empty(r.t, a.Device)
				r.settled()
				r.detach(a)
				r.settled()
				assert.NotContains(r.t, r.parked(), a.ID)
				st := r.status()
				assert.Equal(r.t, []uint64{0, 0}, []uint64{st.Hits, st.Misses})
				again, err := r.orch.Attach(r.t.Context(), req)
				require.NoError(r.t, err, "what it asked for is free again")
				assert.Empty(r.t, again.Device)
			})
		})
	}
}

// TestWarmHandover takes a parked vNIC for an engine, with the network's own MTU asked for.
func TestWarmHandover(t *testing.T) {
	inPool(t, 1, 2, func(r *rig) {
		req := request("web", "eth0")
		req.Handover, req.MTU = true, 1500
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		require.NotEmpty(r.t, a.Device)
		assert.Contains(r.t, r.world.String(), "root: "+a.VNIC().LinkName()+" "+a.MAC.String())
		r.world.TakeIn("vm1", a.VNIC(), "web", "eth0")
		synctest.Wait()
		r.detach(a)
		r.settled()
	})
}

// TestMACOfAParkedOne asks for a MAC that a parked vNIC has.
func TestMACOfAParkedOne(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		p := r.vnics()[0]
		req := request("web", "eth0")
		req.MAC = p.MAC
		_, err := r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrAddressTaken)
		require.EqualError(r.t, err, "attach web/eth0 in vm1: phase requested: lease: mac "+p.MAC.String()+" is that of vnic "+string(p.ID)+
			" in a pool of vm vm1; choose another, or detach that one: address taken")
		r.settled()
	})
}

func TestPoolIsEmpty(t *testing.T) {
	inPool(t, 0, 1, func(r *rig) {
		a, b := r.attach("web", "eth0"), r.attach("web", "eth1")
		st := r.status()
		assert.Equal(r.t, []uint64{0, 2}, []uint64{st.Hits, st.Misses})
		r.detach(a)
		r.detach(b)
		assert.Equal(r.t, []vnic.ID{a.ID}, r.parked(), "the pool is full with one")
		r.settled()
	})
}

// TestPoolIsFullMeanwhile has the last place be taken while a vNIC is retrieved.
func TestPoolIsFullMeanwhile(t *testing.T) {
	inPool(t, 0, 1, func(r *rig) {
		r.attach("web", "eth0")
		r.attach("web", "eth1")
		var both sync.WaitGroup
		both.Add(2)
		r.world.Before("retrieve", func(context.Context) error { both.Done(); both.Wait(); return nil })
		each(2, func(i int) {
			_, err := r.orch.DetachKey(r.t.Context(), request("web", fmt.Sprintf("eth%d", i)).Key)
			assert.NoError(r.t, err)
		})
		assert.Equal(r.t, 2, r.world.Calls("retrieve"))
		assert.Equal(r.t, 1, r.world.Calls("unplug"))
		synctest.Wait()
		r.settled()
	})
}

func TestSetPoolAgain(t *testing.T) {
	inPool(t, 4, 8, func(r *rig) {
		before := r.parked()
		r.setPool(6, 6)
		assert.Subset(r.t, r.parked(), before)
		r.settled()
		r.setPool(1, 3)
		assert.Equal(r.t, 3, r.status().Parked)
		r.settled()
		before = r.parked()
		require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 2, High: 3, Queues: 2}))
		synctest.Wait()
		r.settled()
		for _, id := range before {
			assert.NotContains(r.t, r.parked(), id, "it has one queue")
		}
		assert.Empty(r.t, r.attach("web", "eth0").Device, "it asks for one queue")
	})
}

func TestRemovePool(t *testing.T) {
	inPool(t, 2, 2, func(r *rig) {
		a := r.attach("web", "eth0")
		synctest.Wait()
		require.NoError(r.t, r.orch.RemovePool(r.t.Context(), "vm1", "blue"))
		list, err := r.orch.Pools(r.t.Context())
		require.NoError(r.t, err)
		assert.Empty(r.t, list)
		r.consistent()
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		r.detach(a)
		r.nothingLeft()
		err = r.orch.RemovePool(r.t.Context(), "vm1", "blue")
		require.EqualError(r.t, err, "remove pool vm1/blue: vm vm1 keeps no vnics of network blue; see `brfuse pool list`: unknown pool")
		require.ErrorIs(r.t, err, vnic.ErrUnknownPool)
	})
}

// TestRemovePoolWhileItFills waits for what is being plugged.
func TestRemovePoolWhileItFills(t *testing.T) {
	inRig(t, func(r *rig) {
		goOn := make(chan struct{})
		r.world.After("plug", func(context.Context) error { <-goOn; return nil })
		r.setPool(6, 6)
		done := make(chan error, 1)
		go func() { done <- r.orch.RemovePool(r.t.Context(), "vm1", "blue") }()
		synctest.Wait()
		close(goOn)
		require.NoError(r.t, <-done)
		synctest.Wait()
		r.nothingLeft()
	})
}

func TestRemoveVMWithPool(t *testing.T) {
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint(force), func(t *testing.T) {
			inPool(t, 3, 3, func(r *rig) {
				if force {
					r.attach("web", "eth0")
				}
				require.NoError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", force))
				r.nothingLeft()
				list, err := r.orch.Pools(r.t.Context())
				require.NoError(r.t, err)
				assert.Empty(r.t, list)
			})
		})
	}
}

// TestRemoveVMAgain ends a removal that a stubborn hypervisor stopped.
func TestRemoveVMAgain(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		r.world.Fail("unplug", errBoom)
		require.ErrorIs(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", false), errBoom)
		require.ErrorIs(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", false), errBoom)
		r.world.Fail("unplug", nil)
		require.NoError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", false))
		r.settleDown()
		r.nothingLeft()
	})
}

func TestRemoveNetworkWithPool(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		require.NoError(r.t, r.orch.RemoveNetwork(r.t.Context(), "blue"))
		assert.Equal(r.t, "network red on bf-red", r.world.String())
		assert.Empty(r.t, r.leases())
	})
}

// TestRemovePoolGivesUp goes on in the background when its caller waits no longer.
func TestRemovePoolGivesUp(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Hang("retrieve")
		r.setPool(2, 2)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := r.orch.RemovePool(ctx, "vm1", "blue")
		require.ErrorIs(r.t, err, context.DeadlineExceeded)
		require.ErrorContains(r.t, err, "remove pool vm1/blue: unplug vnic ")
		assert.Equal(r.t, time.Second, time.Since(start))
		r.settleDown()
		r.nothingLeft()
	})
}
