package orchestrator_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// handover is what Docker's driver asks for.
func handover() vnic.Request {
	req := request("ep1", "eth0")
	req.Handover, req.Manager = true, "docker"
	return req
}

func (r *rig) handOver() vnic.Attachment {
	r.t.Helper()
	a, err := r.orch.Attach(r.t.Context(), handover())
	require.NoError(r.t, err)
	return a
}

func TestHandover(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.handOver() // there is no pod of that name, and none is asked for
		assert.Equal(r.t, vnic.PhaseReady, a.Phase)
		assert.Empty(r.t, a.Request.Netns)
		assert.Contains(r.t, r.world.String(), "root: "+a.ID.LinkName()+" "+a.MAC.String()+" down")
		assert.Zero(r.t, r.world.Calls("configure"))
		r.world.TakeIn("vm1", a.ID, "web", "eth0")
		assert.Equal(r.t, a.ID, r.handOver().ID, "the engine has it")
		assert.Contains(r.t, r.world.String(), "pod web: eth0 "+a.MAC.String())
		_, err := r.orch.DetachKey(r.t.Context(), a.Request.Key)
		require.NoError(r.t, err)
		r.nothingLeft()
	})
}

// TestHandoverStays in all that happens to a vNIC in an engine's hands, until the
// engine gives it back, or it is nowhere any more.
func TestHandoverStays(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig, a vnic.Attachment)
		want string
	}{
		{"nothing", func(*rig, vnic.Attachment) {}, "vm1/ep1/eth0 ready"},
		{"in a container", func(r *rig, a vnic.Attachment) { r.world.TakeIn("vm1", a.ID, "web", "eth0") }, "vm1/ep1/eth0 ready"},
		{"back from a container", func(r *rig, a vnic.Attachment) {
			r.world.TakeIn("vm1", a.ID, "web", "eth0")
			r.world.KillPod("vm1", "web")
		}, "vm1/ep1/eth0 ready"},
		{"told to be back", func(r *rig, a vnic.Attachment) {
			r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", ID: a.ID, MAC: a.MAC})
		}, "vm1/ep1/eth0 ready"},
		{"agent restarted", func(r *rig, _ vnic.Attachment) { r.world.StopAgent("vm1"); r.world.StartAgent("vm1") }, "vm1/ep1/eth0 ready"},
		{"ejected", func(r *rig, a vnic.Attachment) { r.world.Eject("vm1", a.ID) }, ""},
		{"nowhere in the guest", func(r *rig, _ vnic.Attachment) {
			r.world.Fail("move", vnic.ErrNICMissing)
			r.world.StopAgent("vm1")
			r.world.StartAgent("vm1")
		}, ""},
		{"vm gone", func(r *rig, _ vnic.Attachment) { r.world.Kill("vm1") }, ""},
	}
	for _, c := range cases {
		for _, restart := range []bool{false, true} {
			name := c.name
			if restart {
				name += ", daemon restarted"
			}
			t.Run(name, func(t *testing.T) {
				inRig(t, func(r *rig) {
					a := r.handOver()
					c.do(r, a)
					if restart {
						r.restart()
					}
					synctest.Wait()
					assert.Equal(r.t, c.want, r.list())
				})
			})
		}
	}
}

func TestCrashHandover(t *testing.T) {
	for _, p := range crashPoints([]string{"plug", "move"}, 4) {
		t.Run(p.String(), func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.conn.CrashAt(p.at, p.skip)
				_, err := r.orch.Attach(r.t.Context(), handover())
				if !r.conn.Crashed() {
					require.NoError(r.t, err)
				}
				r.restart()
				synctest.Wait()
				if list := r.list(); list != "" {
					require.Equal(r.t, "vm1/ep1/eth0 ready", list)
				} else {
					r.nothingLeft()
				}
				r.handOver()
				require.Equal(r.t, "vm1/ep1/eth0 ready", r.list())
			})
		})
	}
}

// slowStore does something before its first change.
type slowStore struct {
	store.Store

	once sync.Once
	do   func()
}

func (s *slowStore) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	s.once.Do(s.do)
	return s.Store.Update(ctx, fn)
}

// TestDetachKeyWaitsForTheAttach: an engine that gave up asks for the removal while
// the attach has not written anything down yet.
func TestDetachKeyWaitsForTheAttach(t *testing.T) {
	inRig(t, func(r *rig) {
		detached := make(chan error, 1)
		require.NoError(r.t, r.orch.Close())
		slow := &slowStore{Store: r.store}
		r.store = slow
		r.start()
		synctest.Wait()
		slow.do = func() {
			go func() {
				_, err := r.orch.DetachKey(r.t.Context(), request("web", "eth0").Key)
				detached <- err
			}()
			synctest.Wait()
		}
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.NoError(r.t, err)
		require.NoError(r.t, <-detached)
		r.nothingLeft()
	})
}

func TestDetachManaged(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		_, err := r.orch.DetachManaged(r.t.Context(), a.Request.Key)
		require.ErrorIs(r.t, err, vnic.ErrForbidden)
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		b := r.handOver()
		_, err = r.orch.DetachManaged(r.t.Context(), b.Request.Key)
		require.NoError(r.t, err)
		_, err = r.orch.DetachManaged(r.t.Context(), b.Request.Key)
		require.NoError(r.t, err, "there is none")
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
	})
}
