package orchestrator_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

var errBoom = errors.New("boom")

func TestAttach(t *testing.T) {
	inRig(t, func(r *rig) {
		req := request("web", "eth0")
		req.MAC = vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, empty+`
tap `+string(a.ID)+` of vm1
vm1: device `+string(a.ID)+` 02:00:5e:00:53:01 in slot 1
vm1: pod web: eth0 02:00:5e:00:53:01 up 10.1.0.2/24 fd00:1::2/64, 0.0.0.0/0 via 10.1.0.1, ::/0 via fd00:1::1`, r.world.String())
		assert.Equal(r.t, vnic.PhaseReady, a.Phase)
		assert.Equal(r.t, "pci.1/1", a.Slot)
		assert.Equal(r.t, "0000:01:01.0", a.GuestPCI)
		assert.Equal(r.t, 1500, a.MTU)
		assert.Equal(r.t, []string{"lease", "prepare", "plug", "appear", "move", "configure", "total"}, steps(a))
		got, err := r.orch.Get(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		assert.Equal(r.t, a.Timings, got.Timings)

		gone, err := r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.PhaseReleased, gone.Phase)
		assert.Equal(r.t, []string{"release", "unplug", "total"}, steps(gone))
		r.nothingLeft()
	})
}

func steps(a vnic.Attachment) []string {
	var names []string
	for _, s := range a.Timings {
		names = append(names, s.Step)
	}
	return names
}

func TestAttachAsAsked(t *testing.T) {
	inRig(t, func(r *rig) {
		req := request("web", "net1")
		req.Netns, req.MTU, req.Queues, req.NoDefaultRoute = "db", 1400, 4, true
		req.Addresses = []netip.Addr{netip.MustParseAddr("fd00:1::77"), netip.MustParseAddr("10.1.0.77")}
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, 1400, a.MTU)
		assert.Contains(r.t, r.world.String(), "pod db: net1 "+a.MAC.String()+" up 10.1.0.77/24 fd00:1::77/64")
		assert.NotContains(r.t, r.world.String(), " via ")
	})
}

// TestAttachFails has a case for each way in which an attach fails: for the text
// and code of the error, and that it leaves nothing behind.
func TestAttachFails(t *testing.T) {
	addr := func(s string) func(*rig, *vnic.Request) {
		return func(_ *rig, q *vnic.Request) { q.Addresses = []netip.Addr{netip.MustParseAddr(s)} }
	}
	fail := func(call string, err error) func(*rig, *vnic.Request) {
		return func(r *rig, _ *vnic.Request) { r.world.Fail(call, err) }
	}
	hang := func(call string) func(*rig, *vnic.Request) {
		return func(r *rig, _ *vnic.Request) { r.world.Hang(call) }
	}
	after := func(call string) func(*rig, *vnic.Request) {
		return func(r *rig, _ *vnic.Request) { r.world.After(call, func(context.Context) error { return errBoom }) }
	}
	cases := []struct {
		name string
		prep func(*rig, *vnic.Request)
		want string
		is   error
	}{
		{
			"invalid name", func(_ *rig, q *vnic.Request) { q.Interface = "a/b" },
			"attach web/a/b in vm1: interface name \"a/b\": '/', ':', '%', spaces and unprintable characters are not allowed: invalid argument",
			vnic.ErrInvalid,
		},
		{
			"unknown vm", func(_ *rig, q *vnic.Request) { q.VM = "vm9" },
			"attach web/eth0 in vm9: phase requested: lease: vm vm9 is not registered; see `brfuse vm add`: unknown vm",
			vnic.ErrUnknownVM,
		},
		{
			"unknown network", func(_ *rig, q *vnic.Request) { q.Network = "green" },
			"attach web/eth0 in vm1: phase requested: lease: network green does not exist; see `brfuse network create`: unknown network",
			vnic.ErrUnknownNetwork,
		},
		{
			"mtu too large", func(_ *rig, q *vnic.Request) { q.MTU = 9000 },
			"attach web/eth0 in vm1: phase requested: lease: mtu 9000 is larger than 1500 of network blue: invalid argument",
			vnic.ErrInvalid,
		},
		{
			"address outside", addr("10.9.0.1"),
			"attach web/eth0 in vm1: phase requested: lease: network blue: address 10.9.0.1 is not in [10.1.0.0/24 fd00:1::/64]; " +
				"choose one in it: address outside of the pool",
			vnic.ErrAddressOutside,
		},
		{
			"address of the gateway", addr("10.1.0.1"),
			"attach web/eth0 in vm1: phase requested: lease: network blue: address 10.1.0.1 is the gateway; choose another: address taken",
			vnic.ErrAddressTaken,
		},
		{
			"broadcast address", addr("10.1.0.255"),
			"attach web/eth0 in vm1: phase requested: lease: network blue: address 10.1.0.255 is no host address of 10.1.0.0/24; " +
				"choose another: address outside of the pool",
			vnic.ErrAddressOutside,
		},
		{
			"unknown pod", func(_ *rig, q *vnic.Request) { q.Netns = "ghost" },
			"attach web/eth0 in vm1: phase leased: prepare: netns ghost: unknown pod", vnic.ErrUnknownPod,
		},
		{
			"agent absent", func(r *rig, _ *vnic.Request) { r.world.StopAgent("vm1") },
			"attach web/eth0 in vm1: phase leased: prepare: vm vm1: guest agent unavailable", vnic.ErrAgentUnavailable,
		},
		{
			"agent silent", hang("prepare"),
			"attach web/eth0 in vm1: phase leased: prepare: no answer within 10s: context deadline exceeded", context.DeadlineExceeded,
		},
		{
			"no slot", func(r *rig, _ *vnic.Request) { r.world.SetSlots("vm1", 0) },
			"attach web/eth0 in vm1: phase leased: plug: vm vm1: no free PCI slot: 0 of 0 in use; " +
				"boot the vm with more, see `brfuse topology --vnics N`",
			vnic.ErrNoSlot,
		},
		{"plug fails", fail("plug", errBoom), "attach web/eth0 in vm1: phase leased: plug: boom", errBoom},
		{"plug fails late", after("plug"), "attach web/eth0 in vm1: phase leased: plug: boom", errBoom},
		{
			"hypervisor silent", hang("plug"),
			"attach web/eth0 in vm1: phase leased: plug: no answer within 15s: context deadline exceeded", context.DeadlineExceeded,
		},
		{
			"hypervisor gone, known", func(r *rig, _ *vnic.Request) { r.world.Kill("vm1") },
			"attach web/eth0 in vm1: phase requested: lease: vm vm1: its hypervisor does not answer; start the vm: vm is gone", vnic.ErrVMGone,
		},
		{
			"hypervisor gone at prepare", func(r *rig, _ *vnic.Request) {
				r.world.Before("prepare", func(context.Context) error { r.world.Kill("vm1"); return nil })
			},
			"attach web/eth0 in vm1: phase leased: prepare: vm vm1: its hypervisor does not answer; start the vm: vm is gone", vnic.ErrVMGone,
		},
		{
			"hypervisor gone at plug", func(r *rig, _ *vnic.Request) {
				r.world.Before("plug", func(context.Context) error { r.world.Kill("vm1"); return nil })
			},
			"attach web/eth0 in vm1: phase leased: plug: vm vm1: vm is gone", vnic.ErrVMGone,
		},
		{
			"nic never shows", func(r *rig, _ *vnic.Request) { r.world.Blind("vm1") },
			"attach web/eth0 in vm1: phase plugged: move: vnic 02:00:5e:00:53:01: vnic did not appear in the guest", vnic.ErrNICMissing,
		},
		{"move fails", fail("move", errBoom), "attach web/eth0 in vm1: phase plugged: move: boom", errBoom},
		{"move fails late", after("move"), "attach web/eth0 in vm1: phase plugged: move: boom", errBoom},
		{
			"move hangs", hang("move"),
			"attach web/eth0 in vm1: phase plugged: move: no answer within 15s: context deadline exceeded", context.DeadlineExceeded,
		},
		{
			"pod dies meanwhile", func(r *rig, _ *vnic.Request) {
				r.world.Before("move", func(context.Context) error { r.world.KillPod("vm1", "web"); return nil })
			},
			"attach web/eth0 in vm1: phase plugged: move: netns web: unknown pod", vnic.ErrUnknownPod,
		},
		{"configure fails", fail("configure", errBoom), "attach web/eth0 in vm1: phase moved: configure: boom", errBoom},
		{"configure fails late", after("configure"), "attach web/eth0 in vm1: phase moved: configure: boom", errBoom},
		{
			"configure hangs", hang("configure"),
			"attach web/eth0 in vm1: phase moved: configure: no answer within 10s: context deadline exceeded", context.DeadlineExceeded,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				req := request("web", "eth0")
				req.MAC = vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}
				c.prep(r, &req)
				_, err := r.orch.Attach(r.t.Context(), req)
				require.EqualError(r.t, err, c.want)
				require.ErrorIs(r.t, err, c.is)
				synctest.Wait()
				r.nothingLeft()
			})
		})
	}
}

func TestAttachOfWhatIsTaken(t *testing.T) {
	inRig(t, func(r *rig) {
		first := request("web", "eth0")
		first.MAC, first.Addresses = vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, []netip.Addr{netip.MustParseAddr("10.1.0.9")}
		_, err := r.orch.Attach(r.t.Context(), first)
		require.NoError(r.t, err)
		before := r.leases()

		second := request("db", "eth0")
		second.Addresses = first.Addresses
		_, err = r.orch.Attach(r.t.Context(), second)
		require.EqualError(r.t, err, "attach db/eth0 in vm1: phase requested: lease: network blue: "+
			"address 10.1.0.9 is leased to vm1/web/eth0; choose another, or detach that one: address taken")
		second.Addresses, second.MAC = nil, first.MAC
		_, err = r.orch.Attach(r.t.Context(), second)
		require.EqualError(r.t, err, "attach db/eth0 in vm1: phase requested: lease: "+
			"mac 02:00:5e:00:53:01 is that of vm1/web/eth0; choose another, or detach that one: address taken")
		second.MAC, second.Netns, second.Interface = vnic.MAC{}, "web", "eth0"
		_, err = r.orch.Attach(r.t.Context(), second)
		require.EqualError(r.t, err, "attach db/eth0 in vm1: phase leased: prepare: interface eth0 in netns web: interface name taken")
		require.ErrorIs(r.t, err, vnic.ErrNameTaken)
		assert.Equal(r.t, before, r.leases(), "a refused request leases nothing")
	})
}

func TestAttachAgain(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		assert.Equal(r.t, a.ID, r.attach("web", "eth0").ID)
		assert.Equal(r.t, 1, r.world.Calls("plug"))
	})
}

// TestAttachAgainAfterALoss attaches again before the event comes that tells of
// the loss: what was ready must not pass for it.
func TestAttachAgainAfterALoss(t *testing.T) {
	cases := []struct {
		name string
		lose func(*rig, vnic.Attachment)
	}{
		{"vm restarted", func(r *rig, _ vnic.Attachment) { r.world.Boot("vm1", "web") }},
		{"pod died and another has its name", func(r *rig, _ vnic.Attachment) {
			r.world.KillPod("vm1", "web")
			r.world.StartPod("vm1", "web")
		}},
		{"ejected", func(r *rig, a vnic.Attachment) { r.world.Eject("vm1", a.ID) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				old := r.attach("web", "eth0")
				r.conn.Notify(func(vnic.Event) {}) // it is under way
				c.lose(r, old)
				assert.NotEqual(r.t, old.ID, r.attach("web", "eth0").ID)
				assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
				r.consistent()
			})
		})
	}
}

// TestAttachAgainOfSilentHost: nothing is concluded from silence.
func TestAttachAgainOfSilentHost(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Hang("ports")
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.EqualError(r.t, err, "attach web/eth0 in vm1: phase ready: see if the vnic is still there: ask host: context deadline exceeded")
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
	})
}

func TestAttachAgainWhileItRuns(t *testing.T) {
	inRig(t, func(r *rig) {
		var mu sync.Mutex
		ids := map[vnic.ID]bool{}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				a, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
				mu.Lock()
				defer mu.Unlock()
				ids[a.ID] = assert.NoError(r.t, err)
			})
		}
		wg.Wait()
		assert.Len(r.t, ids, 1)
		assert.Equal(r.t, 1, r.world.Calls("plug"))
	})
}

// TestAttachCancelled cancels the caller's context in each step: the undo runs
// all the same.
func TestAttachCancelled(t *testing.T) {
	for _, call := range []string{"prepare", "plug", "move", "configure"} {
		t.Run(call, func(t *testing.T) {
			inRig(t, func(r *rig) {
				ctx, cancel := context.WithCancel(r.t.Context())
				r.world.After(call, func(context.Context) error { cancel(); return nil })
				_, err := r.orch.Attach(ctx, request("web", "eth0"))
				require.ErrorIs(r.t, err, context.Canceled)
				require.ErrorContains(r.t, err, "phase ")
				r.nothingLeft()
			})
		})
	}
}

func TestAttachWhileClosing(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Hang("move")
		errs := make(chan error, 1)
		go func() {
			_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
			errs <- err
		}()
		synctest.Wait()
		require.NoError(r.t, r.orch.Close())
		require.ErrorIs(r.t, <-errs, context.Canceled)
		r.nothingLeft()
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.EqualError(r.t, err, "attach web/eth0 in vm1: orchestrator: file already closed")
	})
}

// TestUndoFails has the undo of a failed attach fail too: it is tried again until
// it works, and an attach of the same pod waits for that.
func TestUndoFails(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Fail("move", errBoom)
		r.world.Fail("unplug", errors.New("stuck"))
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.EqualError(r.t, err, "attach web/eth0 in vm1: phase plugged: move: boom; "+
			"undoing it goes on in the background, for it failed too: unplug: stuck")
		require.ErrorIs(r.t, err, errBoom)
		list, err := r.orch.List(r.t.Context(), orchestrator.Filter{})
		require.NoError(r.t, err)
		require.Len(r.t, list, 1)
		assert.Equal(r.t, vnic.PhaseDetaching, list[0].Phase)
		assert.Equal(r.t, "unplug: stuck", list[0].LastError)
		assert.Len(r.t, strings.Split(r.leases(), "\n"), 8, "the leases are kept as long as the device may be there")

		r.world.Fail("move", nil)
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		defer cancel()
		_, err = r.orch.Attach(ctx, request("web", "eth0"))
		require.ErrorIs(r.t, err, context.DeadlineExceeded)
		require.ErrorContains(r.t, err, "phase requested: wait until attachment "+string(list[0].ID)+" of this pod is detached: ")

		done := make(chan vnic.Attachment, 1)
		go func() { done <- r.attach("web", "eth0") }()
		synctest.Wait()
		r.world.Fail("unplug", nil)
		a := <-done
		assert.NotEqual(r.t, list[0].ID, a.ID)
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
	})
}

// An engine with an IPAM of its own knows of the addresses only that it wants.
func TestAttachExact(t *testing.T) {
	inRig(t, func(r *rig) {
		req := request("web", "eth0")
		req.Exact, req.Addresses = true, []netip.Addr{netip.MustParseAddr("10.1.0.9")}
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24")}, a.Leases)
		assert.Equal(r.t, []netip.Addr{netip.MustParseAddr("10.1.0.1")}, a.Gateways)

		req.Addresses = []netip.Addr{netip.MustParseAddr("fd00:1::9")}
		_, err = r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrConflict)
		req.Exact, req.Addresses = false, nil
		_, err = r.orch.Attach(r.t.Context(), req)
		require.ErrorContains(r.t, err, "choice of addresses (the wanted ones alone, not one a subnet)")
		req.Exact, req.Key = true, vnic.Key{VM: "vm1", Pod: "db", Interface: "eth0"}
		_, err = r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrInvalid, "no address at all")
		req.Addresses = []netip.Addr{netip.MustParseAddr("10.2.0.9")}
		_, err = r.orch.Attach(r.t.Context(), req)
		require.ErrorIs(r.t, err, vnic.ErrAddressOutside)
	})
}
