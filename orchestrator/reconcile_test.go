package orchestrator_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestCrashAttach crashes the daemon before and after each side effect and each
// write of an attach. After a restart the attachment is ready or gone.
func TestCrashAttach(t *testing.T) {
	for _, where := range crashPoints([]string{"prepare", "plug", "move", "configure"}, 4) {
		t.Run(where.String(), func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.attach("db", "eth0")
				r.conn.CrashAt(where.at, where.skip)
				_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
				require.Error(r.t, err)
				require.True(r.t, r.conn.Crashed(), "the point must be reached")
				r.restart()
				synctest.Wait()
				if where.at == "after update" && where.skip == 3 {
					assert.Equal(r.t, "vm1/db/eth0 ready\nvm1/web/eth0 ready", r.list())
				} else {
					assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
				}
				r.consistent()
				r.attach("web", "eth0")
				r.consistent()
			})
		})
	}
}

// TestCrashDetach is the like for a detach: whatever happened, the attachment
// is ready or gone.
func TestCrashDetach(t *testing.T) {
	for _, where := range crashPoints([]string{"release", "unplug"}, 2) {
		t.Run(where.String(), func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.attach("db", "eth0")
				a := r.attach("web", "eth0")
				r.conn.CrashAt(where.at, where.skip)
				_, _ = r.orch.Detach(r.t.Context(), a.ID)
				require.True(r.t, r.conn.Crashed(), "the point must be reached")
				r.restart()
				synctest.Wait()
				if where.at == "before update" && where.skip == 0 {
					assert.Equal(r.t, "vm1/db/eth0 ready\nvm1/web/eth0 ready", r.list())
				} else {
					assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
				}
				r.consistent()
			})
		})
	}
}

// TestCrashMany crashes while six attaches and detaches run.
func TestCrashMany(t *testing.T) {
	for skip := range 16 {
		inRig(t, func(r *rig) {
			for _, i := range []string{"eth0", "eth1", "eth2"} {
				r.attach("db", i)
			}
			r.conn.CrashAt("after update", skip)
			for _, i := range []string{"eth0", "eth1", "eth2"} {
				go r.orch.Attach(r.t.Context(), request("web", i))       //nolint:errcheck // the outcome is looked at
				go r.orch.DetachKey(r.t.Context(), request("db", i).Key) //nolint:errcheck // the outcome is looked at
			}
			synctest.Wait()
			r.restart()
			synctest.Wait()
			r.consistent()
		})
	}
}

type crashPoint struct {
	at   string
	skip int
}

func (p crashPoint) String() string { return p.at + " " + string(rune('1'+p.skip)) }

func crashPoints(calls []string, updates int) []crashPoint {
	var points []crashPoint
	for _, c := range calls {
		points = append(points, crashPoint{"before " + c, 0}, crashPoint{"after " + c, 0})
	}
	for i := range updates {
		points = append(points, crashPoint{"before update", i}, crashPoint{"after update", i})
	}
	return points
}

// TestRestart changes the world while no daemon runs.
func TestRestart(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig, a vnic.Attachment)
		want string
	}{
		{"nothing happened", func(*rig, vnic.Attachment) {}, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"ejected", func(r *rig, a vnic.Attachment) { r.world.Eject("vm1", a.ID) }, "vm1/db/eth0 ready"},
		{"pod died", func(r *rig, _ vnic.Attachment) { r.world.KillPod("vm1", "web") }, "vm1/db/eth0 ready"},
		{"vm died", func(r *rig, _ vnic.Attachment) { r.world.Kill("vm1") }, ""},
		{"guest rebooted", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
			r.world.KillPod("vm1", "db")
			r.world.StartAgent("vm1")
		}, ""},
		{"agent stopped", func(r *rig, _ vnic.Attachment) { r.world.StopAgent("vm1") }, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"device littered", func(r *rig, _ vnic.Attachment) { r.world.Litter("vm1", "00000000aa") }, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
		{"tap deleted", func(r *rig, a vnic.Attachment) { r.world.DeleteTap(a.ID) }, "vm1/db/eth0 ready"},
		{"tap littered", func(r *rig, _ vnic.Attachment) { r.world.Litter("", "00000000aa") }, "vm1/db/eth0 ready\nvm1/web/eth0 ready"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				r.attach("db", "eth0")
				r.conn.Crash()
				c.do(r, a)
				r.restart()
				synctest.Wait()
				assert.Equal(r.t, c.want, r.list())
				r.consistent()
				assert.NotContains(r.t, r.world.String(), "00000000aa")
			})
		})
	}
}

// TestVMRestartedFast has a hypervisor be replaced so fast that nobody saw it
// gone: the host half tells of a connection that was made again, no more.
func TestVMRestartedFast(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Boot("vm1", "web")
		synctest.Wait()
		r.nothingLeft()
		r.attach("web", "eth0")
	})
}

// TestRestartTellsGuest has daemon and agent restart: the agent, which has
// forgotten all, is told again and so notices when the pod dies.
func TestRestartTellsGuest(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		before := r.world.String()
		r.world.StopAgent("vm1")
		r.restart()
		synctest.Wait()
		r.world.StartAgent("vm1")
		synctest.Wait()
		assert.Equal(r.t, before, r.world.String())
		r.world.KillPod("vm1", "web")
		synctest.Wait()
		r.nothingLeft()
	})
}

// TestRestartWithoutAgent has half-done attachments settled by the host alone.
func TestRestartWithoutAgent(t *testing.T) {
	inRig(t, func(r *rig) {
		r.conn.CrashAt("before move", 0)
		_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
		require.Error(r.t, err)
		r.world.StopAgent("vm1")
		r.restart()
		synctest.Wait()
		r.nothingLeft()
	})
}

// TestRestartOfSilentHost must not conclude anything from a hypervisor that
// does not answer yet.
func TestRestartOfSilentHost(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Fail("ports", errBoom)
		r.conn.Crash()
		require.NoError(r.t, r.orch.Close())
		r.start()
		synctest.Wait()
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		require.EqualError(r.t, r.orch.Reconcile(r.t.Context(), "vm1"), "reconcile vm vm1: ask host: boom")

		r.world.Fail("ports", nil)
		r.orch.Notify(vnic.Event{Kind: vnic.EventVMUp, VM: "vm1"})
		synctest.Wait()
		r.consistent()
		r.orch.Notify(vnic.Event{Kind: vnic.EventVMGone, VM: "vm1"})
		synctest.Wait()
		r.nothingLeft()
	})
}

func TestRestartTriesHalvesAgain(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Fail("setnetwork", errBoom)
		r.world.Fail("addvm", errBoom)
		r.world.Fail("ports", errBoom)
		r.restart()
		synctest.Wait()
		for _, call := range []string{"setnetwork", "addvm", "ports"} {
			r.world.Fail(call, nil)
		}
		r.settleDown()
		r.consistent()
	})
}

func TestReconcileUnknownVM(t *testing.T) {
	inRig(t, func(r *rig) {
		err := r.orch.Reconcile(r.t.Context(), "vm9")
		require.EqualError(r.t, err, "reconcile vm vm9: not registered; see `brfuse vm add`: unknown vm")
		require.ErrorIs(r.t, err, vnic.ErrUnknownVM)
	})
}

// TestReconcileErrors keeps an attachment as long as the guest's trouble does not
// tell that the vNIC is lost.
func TestReconcileErrors(t *testing.T) {
	cases := []struct {
		name string
		fail error
		want string
	}{
		{"agent goes away", vnic.ErrAgentUnavailable, "vm1/web/eth0 ready"},
		{"something else", errBoom, "vm1/web/eth0 ready"},
		{"nic missing", vnic.ErrNICMissing, ""},
		{"name taken", vnic.ErrNameTaken, ""},
		{"pod unknown", vnic.ErrUnknownPod, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.attach("web", "eth0")
				r.world.Fail("move", c.fail)
				err := r.orch.Reconcile(r.t.Context(), "vm1")
				if c.name == "something else" {
					require.ErrorIs(r.t, err, errBoom)
				} else {
					require.NoError(r.t, err)
				}
				assert.Equal(r.t, c.want, r.list())
			})
		})
	}
}
