package orchestrator_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestDetachOfWhatIsGone(t *testing.T) {
	inRig(t, func(r *rig) {
		a, err := r.orch.Detach(r.t.Context(), "0123456789")
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.Attachment{ID: "0123456789", Phase: vnic.PhaseReleased}, a)
		a, err = r.orch.DetachKey(r.t.Context(), request("web", "eth0").Key)
		require.NoError(r.t, err)
		assert.Equal(r.t, vnic.PhaseReleased, a.Phase)
	})
}

func TestDetachKey(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		got, err := r.orch.DetachKey(r.t.Context(), a.Request.Key)
		require.NoError(r.t, err)
		assert.Equal(r.t, a.ID, got.ID)
		r.nothingLeft()
	})
}

// TestDetachGoesOn has detaches that meet trouble and succeed all the same.
func TestDetachGoesOn(t *testing.T) {
	cases := []struct {
		name string
		prep func(*rig)
		note string
	}{
		{"agent absent", func(r *rig) { r.world.StopAgent("vm1") }, "release: vm vm1: guest agent unavailable"},
		{"agent silent", func(r *rig) { r.world.Hang("release") }, "release: no answer within 3s: context deadline exceeded"},
		{"guest fails", func(r *rig) { r.world.Fail("release", errBoom) }, "release: boom"},
		{"pod gone", func(r *rig) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
		}, "release: vm vm1: guest agent unavailable"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				c.prep(r)
				got, err := r.orch.Detach(r.t.Context(), a.ID)
				require.NoError(r.t, err)
				assert.Equal(r.t, vnic.PhaseReleased, got.Phase)
				assert.Equal(r.t, c.note, got.LastError)
				r.nothingLeft()
			})
		})
	}
}

func TestDetachCancelled(t *testing.T) {
	for _, call := range []string{"release", "unplug"} {
		t.Run(call, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				ctx, cancel := context.WithCancel(r.t.Context())
				r.world.Before(call, func(context.Context) error { cancel(); return nil })
				_, err := r.orch.Detach(ctx, a.ID)
				require.NoError(r.t, err, "a detach that has begun goes on")
				r.nothingLeft()
			})
		})
	}
}

// TestDetachFails has the hypervisor silent: the detach goes on in the background.
func TestDetachFails(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.world.Hang("unplug")
		got, err := r.orch.Detach(r.t.Context(), a.ID)
		require.EqualError(r.t, err, "detach web/eth0 in vm1: unplug: no answer within 20s: context deadline exceeded; it goes on in the background")
		assert.Equal(r.t, vnic.PhaseDetaching, got.Phase)
		r.world.Fail("unplug", nil)
		r.settleDown()
		r.nothingLeft()
	})
}

func TestDetachWaitsForAttach(t *testing.T) {
	inRig(t, func(r *rig) {
		moving, move := make(chan struct{}), make(chan struct{})
		r.world.Before("move", func(context.Context) error { close(moving); <-move; return nil })
		go r.orch.Attach(r.t.Context(), request("web", "eth0")) //nolint:errcheck // the detach is looked at
		<-moving
		done := make(chan error, 1)
		go func() {
			_, err := r.orch.DetachKey(r.t.Context(), request("web", "eth0").Key)
			done <- err
		}()
		synctest.Wait()
		assert.Equal(r.t, "vm1/web/eth0 plugged", r.list())
		close(move)
		require.NoError(r.t, <-done)
		r.nothingLeft()
	})
}

func TestUndoPauses(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.world.Fail("unplug", errBoom)
		_, err := r.orch.Detach(r.t.Context(), a.ID)
		require.EqualError(r.t, err, "detach web/eth0 in vm1: unplug: boom; it goes on in the background")
		r.settleDown()
		assert.Equal(r.t, 10, r.world.Calls("unplug"), "at once, then after 0.2, 0.4, 0.8 ... s")
		r.world.Fail("unplug", nil)
		r.orch.Notify(vnic.Event{Kind: vnic.EventVMUp, VM: "vm1"})
		synctest.Wait()
		r.nothingLeft()
	})
}

// TestReturnedOfForgetfulAgent: an agent that was just restarted tells of a vNIC
// by its MAC alone.
func TestReturnedOfForgetfulAgent(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.conn.Notify(func(vnic.Event) {})
		r.world.KillPod("vm1", "web")
		r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", MAC: a.MAC})
		synctest.Wait()
		r.nothingLeft()
	})
}

// TestReturnedAgainAndAgain: a guest that says so all the time doesn't keep the
// daemon busy, and the last word counts.
func TestReturnedAgainAndAgain(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.conn.Notify(func(vnic.Event) {})
		before := r.world.Calls("nics")
		for range 1000 {
			r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", MAC: a.MAC})
			synctest.Wait()
		}
		assert.Equal(r.t, before+1, r.world.Calls("nics"))
		r.world.KillPod("vm1", "web")
		r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", MAC: a.MAC})
		r.settleDown()
		assert.Equal(r.t, before+2, r.world.Calls("nics"))
		r.nothingLeft()
	})
}

func TestEvents(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig, a vnic.Attachment)
		want string // what is left of the attachments
	}{
		{"vm gone", func(r *rig, _ vnic.Attachment) { r.world.Kill("vm1") }, ""},
		{"vm restarted", func(r *rig, _ vnic.Attachment) {
			r.world.Kill("vm1")
			r.world.Boot("vm1", "web", "db")
		}, ""},
		{"vm up again, the same", func(r *rig, _ vnic.Attachment) {
			r.orch.Notify(vnic.Event{Kind: vnic.EventVMUp, VM: "vm1"})
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"agent restarted", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.StartAgent("vm1")
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"pod died", func(r *rig, _ vnic.Attachment) { r.world.KillPod("vm1", "web") }, "vm1/db/eth0 ready"},
		{"pod died while the agent was off", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
			r.world.StartAgent("vm1")
		}, "vm1/db/eth0 ready"},
		{"pod was replaced while the agent was off", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
			r.world.StartPod("vm1", "web")
			r.world.StartAgent("vm1")
		}, "vm1/db/eth0 ready"},
		{"ejected", func(r *rig, a vnic.Attachment) { r.world.Eject("vm1", a.ID) }, "vm1/db/eth0 ready"},
		{"ejected, unknown", func(r *rig, _ vnic.Attachment) {
			r.orch.Notify(vnic.Event{Kind: vnic.EventRemoved, VM: "vm1", ID: "0123456789"})
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"returned, of another vm", func(r *rig, a vnic.Attachment) {
			r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm2", ID: a.ID, MAC: a.MAC})
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"returned, with another mac", func(r *rig, a vnic.Attachment) {
			r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", ID: a.ID, MAC: vnic.MAC{2}})
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"of an unknown vm", func(r *rig, _ vnic.Attachment) {
			for _, k := range []vnic.EventKind{vnic.EventVMUp, vnic.EventVMGone, vnic.EventAgentUp, vnic.EventAgentOff} {
				r.orch.Notify(vnic.Event{Kind: k, VM: "vm7"})
			}
		}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				r.attach("db", "eth0")
				c.do(r, a)
				synctest.Wait()
				assert.Equal(r.t, c.want, r.list())
				r.consistent()
			})
		})
	}
}

// journal keeps what is logged. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// TestForgedEventsDoNotWait: what a guest makes up of another VM's vNIC ends at once,
// also while an operation runs on that one.
func TestForgedEventsDoNotWait(t *testing.T) {
	inRig(t, func(r *rig) {
		var logged journal
		r.cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
		r.restart()
		a := r.attach("web", "eth0")
		r.world.Hang("unplug")
		done := make(chan error, 1)
		go func() { _, err := r.orch.Detach(r.t.Context(), a.ID); done <- err }()
		synctest.Wait()
		r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm2", ID: a.ID, MAC: a.MAC})
		r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", ID: a.ID, MAC: vnic.MAC{2}})
		synctest.Wait()
		assert.Equal(r.t, 2, strings.Count(logged.String(), "ignored"))
		r.world.Before("unplug", nil)
		require.ErrorIs(r.t, <-done, context.DeadlineExceeded)
		r.settleDown()
		r.nothingLeft()
	})
}

// consistent checks that the store and the world agree.
func (r *rig) consistent() {
	r.t.Helper()
	findings, err := r.orch.GC(r.t.Context(), true)
	require.NoError(r.t, err)
	require.Empty(r.t, findings)
	ports := 0
	for _, a := range r.all() {
		require.Equal(r.t, vnic.PhaseReady, a.Phase)
		if a.Request.Handover {
			require.Contains(r.t, r.world.String(), fmt.Sprintf("device %s %s", a.VNIC(), a.MAC))
		} else {
			require.Contains(r.t, r.world.String(), fmt.Sprintf("pod %s: %s %s up", a.Request.Netns, a.Request.Interface, a.MAC))
		}
		for _, m := range a.Request.Ports {
			require.Contains(r.t, r.world.String(), fmt.Sprintf("port %s of %s", m, a.VNIC()))
		}
		ports += len(a.Request.Ports)
		require.Contains(r.t, r.world.String(), fmt.Sprintf("tap %s of %s\n", a.VNIC(), a.Request.VM))
	}
	require.Equal(r.t, ports, strings.Count(r.world.String(), "port "), "ports of nobody are published")
	require.Equal(r.t, ports, strings.Count(r.leases(), "port/"))
	r.consistentPools()
}
