package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestWarmAttachFails has requests that fail: the vNIC is parked again, like new.
func TestWarmAttachFails(t *testing.T) {
	cases := []struct {
		name string
		prep func(*rig, *vnic.Request)
		want string
		is   error
	}{
		{
			"unknown pod", func(_ *rig, q *vnic.Request) { q.Netns = "ghost" },
			"attach web/eth0 in vm1: phase plugged: move: netns ghost: unknown pod", vnic.ErrUnknownPod,
		},
		{
			"name taken", func(_ *rig, q *vnic.Request) { q.Pod, q.Netns = "other", "db" },
			"attach other/eth0 in vm1: phase plugged: move: interface eth0 in netns db: interface name taken", vnic.ErrNameTaken,
		},
		{
			"move fails", func(r *rig, _ *vnic.Request) { r.world.Fail("move", errBoom) },
			"attach web/eth0 in vm1: phase plugged: move: boom", errBoom,
		},
		{
			"move fails late", func(r *rig, _ *vnic.Request) { r.world.After("move", func(context.Context) error { return errBoom }) },
			"attach web/eth0 in vm1: phase plugged: move: boom", errBoom,
		},
		{
			"port of another program", func(r *rig, q *vnic.Request) {
				q.Ports = []vnic.PortMapping{mapping(8080, 80)}
				r.world.Occupy(8080, true)
			},
			"attach web/eth0 in vm1: phase plugged: unpark: publish 8080:80/tcp: port of the hypervisor taken", vnic.ErrPortTaken,
		},
		{
			"both fail", func(r *rig, _ *vnic.Request) {
				r.world.Fail("move", errBoom)
				r.world.After("unpark", func(context.Context) error { return errors.New("bang") })
			},
			"attach web/eth0 in vm1: phase plugged: move: boom; unpark: bang", errBoom,
		},
		{
			"configure fails", func(r *rig, _ *vnic.Request) { r.world.Fail("configure", errBoom) },
			"attach web/eth0 in vm1: phase plugged: configure: boom", errBoom,
		},
		{
			"move hangs", func(r *rig, _ *vnic.Request) { r.world.Hang("move") },
			"attach web/eth0 in vm1: phase plugged: move: no answer within 15s: context deadline exceeded", context.DeadlineExceeded,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inPool(t, 2, 4, func(r *rig) {
				r.attach("db", "eth0")
				synctest.Wait()
				before, plugs := r.parked(), r.world.Calls("plug")
				req := request("web", "eth0")
				c.prep(r, &req)
				_, err := r.orch.Attach(r.t.Context(), req)
				require.EqualError(r.t, err, c.want)
				require.ErrorIs(r.t, err, c.is)
				synctest.Wait()
				assert.Subset(r.t, r.parked(), before)
				assert.LessOrEqual(r.t, r.world.Calls("plug"), plugs+1, "the pool may have been filled up meanwhile")
				assert.Zero(r.t, r.world.Calls("unplug"))
				assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
				r.settled()
			})
		})
	}
}

// TestWarmAttachOfABadOne finds parked vNICs that are of no use: the attach gets
// the next one, or a new one.
func TestWarmAttachOfABadOne(t *testing.T) {
	spoil := []struct {
		name string
		do   func(r *rig, id vnic.ID)
	}{
		{"ejected, the event is under way", func(r *rig, id vnic.ID) {
			r.conn.Notify(func(vnic.Event) {})
			r.world.Eject("vm1", id)
			r.conn.Notify(r.orch.Notify)
		}},
		{"ejected", func(r *rig, id vnic.ID) { r.world.Eject("vm1", id) }},
		{"not like new", func(r *rig, id vnic.ID) { r.world.Spoil("vm1", id) }},
		{"tap deleted", func(r *rig, id vnic.ID) { r.world.DeleteTap(id) }},
	}
	for _, c := range spoil {
		for bad := range 4 {
			t.Run(fmt.Sprintf("%s, %d of 3", c.name, bad), func(t *testing.T) {
				inPool(t, 3, 4, func(r *rig) {
					ids := r.parked()
					for i := range min(bad, 3) {
						c.do(r, ids[i])
					}
					a := r.attach("web", "eth0")
					if bad < 2 && c.name == "tap deleted" {
						assert.Equal(r.t, ids[bad], a.Device, "the first that is good")
					}
					r.settleDown()
					gone := min(bad, 3)
					if c.name == "not like new" {
						gone = min(bad, 2) // nobody knows of the third before somebody tries it
					}
					for i := range gone {
						assert.NotContains(r.t, r.world.String(), ids[i])
						assert.NotContains(r.t, r.leases(), ids[i])
					}
					assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
					r.settled()
				})
			})
		}
	}
}

// TestDetachCannotPark unplugs what is not known to be like new.
func TestDetachCannotPark(t *testing.T) {
	cases := []struct {
		name string
		prep func(*rig, vnic.Attachment)
		note string
	}{
		{"guest fails", func(r *rig, _ vnic.Attachment) { r.world.Fail("retrieve", errBoom) }, ""},
		{"guest fails late", func(r *rig, _ vnic.Attachment) {
			r.world.After("retrieve", func(context.Context) error { return errBoom })
		}, ""},
		{"dirt that sticks", func(r *rig, a vnic.Attachment) { r.world.Soil("vm1", a.VNIC(), "bpf_link", true) }, ""},
		{"host fails", func(r *rig, _ vnic.Attachment) { r.world.Fail("park", errBoom) }, ""},
		{
			"agent silent", func(r *rig, _ vnic.Attachment) { r.world.Hang("retrieve"); r.world.Hang("release") },
			"retrieve: no answer within 5s: context deadline exceeded",
		},
		{
			"agent stops", func(r *rig, _ vnic.Attachment) {
				r.world.Before("retrieve", func(context.Context) error { r.world.StopAgent("vm1"); return nil })
			}, "retrieve: vm vm1: guest agent unavailable",
		},
		{
			"agent absent", func(r *rig, _ vnic.Attachment) { r.world.StopAgent("vm1") },
			"release: vm vm1: guest agent unavailable",
		},
		{"pool removed meanwhile", func(r *rig, _ vnic.Attachment) {
			r.world.Before("retrieve", func(ctx context.Context) error { return r.orch.RemovePool(ctx, "vm1", "blue") })
		}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inPool(t, 0, 4, func(r *rig) {
				a := r.attach("web", "eth0")
				c.prep(r, a)
				got := r.detach(a)
				assert.Equal(r.t, c.note, got.LastError)
				synctest.Wait()
				assert.Equal(r.t, 1, r.world.Calls("unplug"))
				r.nothingLeft()
			})
		})
	}
}

// TestDetachCannotParkNorUnplug goes on in the background, by unplugging.
func TestDetachCannotParkNorUnplug(t *testing.T) {
	inPool(t, 0, 4, func(r *rig) {
		a := r.attach("web", "eth0")
		r.world.Fail("park", errBoom)
		r.world.Fail("unplug", errors.New("stuck"))
		_, err := r.orch.Detach(r.t.Context(), a.ID)
		require.EqualError(r.t, err, "detach web/eth0 in vm1: unplug: stuck; it goes on in the background")
		r.world.Fail("park", nil)
		r.world.Fail("unplug", nil)
		r.settleDown()
		r.nothingLeft()
	})
}

// TestWarmAttachAgain uses one vNIC for many pods, with one crash and one restart
// of the agent in between.
func TestWarmAttachAgain(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		r.setPool(0, 1)
		id, seen := r.parked()[0], map[vnic.ID]bool{}
		for i := range 20 {
			a := r.attach([]string{"web", "db"}[i%2], "eth0")
			require.Equal(r.t, id, a.Device)
			require.False(r.t, seen[a.ID])
			seen[a.ID] = true
			r.world.Soil("vm1", id, "tenant "+fmt.Sprint(i), false)
			switch i {
			case 5:
				r.restart()
			case 6:
				r.world.StopAgent("vm1")
				r.world.StartAgent("vm1")
			}
			synctest.Wait()
			r.consistent()
			r.detach(a)
			r.settled()
		}
	})
}

// TestWarmAttachCancelled cancels the caller's context in each step.
func TestWarmAttachCancelled(t *testing.T) {
	for _, call := range []string{"unpark", "move", "configure"} {
		t.Run(call, func(t *testing.T) {
			inPool(t, 1, 2, func(r *rig) {
				ctx, cancel := context.WithCancel(r.t.Context())
				id := r.parked()[0]
				r.world.After(call, func(context.Context) error { cancel(); return nil })
				_, err := r.orch.Attach(ctx, request("web", "eth0"))
				if call != "unpark" { // which may be the last of both
					require.ErrorIs(r.t, err, context.Canceled)
				}
				if err != nil {
					synctest.Wait()
					assert.Contains(r.t, r.parked(), id)
				}
				synctest.Wait()
				r.settled()
			})
		})
	}
}

// TestAgentAway: nothing is taken from the pool that can't be moved, and the
// parked ones are kept.
func TestAgentAway(t *testing.T) {
	inPool(t, 2, 2, func(r *rig) {
		before := r.parked()
		r.world.StopAgent("vm1")
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.EqualError(r.t, err, "attach web/eth0 in vm1: phase leased: prepare: vm vm1: guest agent unavailable")
		r.settleDown()
		assert.Equal(r.t, before, r.parked())
		r.world.StartAgent("vm1")
		synctest.Wait()
		assert.Equal(r.t, before, r.parked())
		r.settled()
	})
}

// TestParkedInAnEarlierSession: the agent that said of a vNIC that it is like new may
// have died before it was sure, so it is not taken before the next one has said so.
func TestParkedInAnEarlierSession(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		old := r.parked()[0]
		r.world.StopAgent("vm1")
		r.world.Hang("nics") // no reconcile comes to an end
		r.world.StartAgent("vm1")
		a := r.attach("web", "eth0")
		assert.NotEqual(r.t, old, a.VNIC())
		r.world.Before("nics", nil)
		r.settleDown()
		r.settled()
		assert.Equal(r.t, old, r.attach("db", "eth0").VNIC())
	})
}
