package orchestrator_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// crashed restarts a daemon that has crashed, and checks that all truths agree
// and that the pool is full again.
func (r *rig) crashed() {
	r.t.Helper()
	require.True(r.t, r.conn.Crashed(), "the point must be reached")
	r.restart()
	r.settleDown()
	r.settled()
}

// TestCrashWarmAttach crashes before and after each side effect and each write of
// an attach from the pool.
func TestCrashWarmAttach(t *testing.T) {
	for _, where := range crashPoints([]string{"unpark", "move", "configure"}, 2) {
		t.Run(where.String(), func(t *testing.T) {
			inPool(t, 2, 3, func(r *rig) {
				r.attach("db", "eth0")
				synctest.Wait()
				r.conn.CrashAt(where.at, where.skip)
				_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
				require.Error(r.t, err)
				r.crashed()
				if where.at == "after update" && where.skip == 1 {
					assert.Equal(r.t, "vm1/db/eth0 ready\nvm1/web/eth0 ready", r.list())
				} else {
					assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
				}
				r.attach("web", "eth0")
				synctest.Wait()
				r.settled()
			})
		})
	}
}

// TestCrashPark crashes in a detach into the pool, of a vNIC that came from there
// and of one that did not.
func TestCrashPark(t *testing.T) {
	for _, where := range crashPoints([]string{"retrieve", "park"}, 2) {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, warm %t", where, warm), func(t *testing.T) {
				inRig(t, func(r *rig) {
					low := 0
					if warm {
						low = 1
					}
					r.setPool(low, 2)
					a := r.attach("web", "eth0")
					synctest.Wait()
					require.Equal(r.t, warm, a.Device != "")
					r.world.Soil("vm1", a.VNIC(), "xdp", false)
					r.conn.CrashAt(where.at, where.skip)
					_, _ = r.orch.Detach(r.t.Context(), a.ID)
					r.crashed()
					if where.at == "before update" && where.skip == 0 {
						assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
					} else {
						assert.Empty(r.t, r.list())
					}
				})
			})
		}
	}
}

// TestCrashUnplugInsteadOfPark crashes in a detach that could not park.
func TestCrashUnplugInsteadOfPark(t *testing.T) {
	for _, where := range crashPoints([]string{"release", "unplug"}, 2) {
		t.Run(where.String(), func(t *testing.T) {
			inPool(t, 1, 2, func(r *rig) {
				a := r.attach("web", "eth0")
				synctest.Wait()
				r.world.Soil("vm1", a.VNIC(), "bpf_link", true)
				r.conn.CrashAt(where.at, where.skip)
				_, _ = r.orch.Detach(r.t.Context(), a.ID)
				r.crashed()
			})
		})
	}
}

// TestCrashFill crashes while the pool is filled.
func TestCrashFill(t *testing.T) {
	for _, where := range crashPoints([]string{"plug", "retrieve"}, 3) {
		t.Run(where.String(), func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.conn.CrashAt(where.at, where.skip)
				_ = r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 1, High: 1})
				synctest.Wait()
				require.True(r.t, r.conn.Crashed(), "the point must be reached")
				r.restart()
				r.settleDown()
				if where.at == "before update" && where.skip == 0 {
					r.nothingLeft() // there is no pool
				} else {
					r.settled()
				}
			})
		})
	}
}

// TestCrashDrain crashes while the pool shrinks.
func TestCrashDrain(t *testing.T) {
	for _, where := range crashPoints([]string{"release", "unplug"}, 3) {
		t.Run(where.String(), func(t *testing.T) {
			inPool(t, 1, 1, func(r *rig) {
				r.conn.CrashAt(where.at, where.skip)
				_ = r.orch.RemovePool(r.t.Context(), "vm1", "blue")
				require.True(r.t, r.conn.Crashed(), "the point must be reached")
				r.restart()
				r.settleDown()
				if where.at == "before update" && where.skip == 0 {
					r.settled()
				} else {
					r.nothingLeft()
				}
			})
		})
	}
}

// TestCrashGiveUp crashes in an attach whose parked vNIC proves bad.
func TestCrashGiveUp(t *testing.T) {
	for _, where := range crashPoints([]string{"retrieve", "unplug"}, 3) {
		t.Run(where.String(), func(t *testing.T) {
			inPool(t, 2, 2, func(r *rig) {
				r.world.DeleteTap(r.parked()[0])
				r.conn.CrashAt(where.at, where.skip)
				_, _ = r.orch.Attach(r.t.Context(), request("web", "eth0"))
				synctest.Wait()
				r.crashed()
			})
		})
	}
}

// TestCrashManyWithPool crashes while attaches and detaches from and into the pool
// run, and it is filled.
func TestCrashManyWithPool(t *testing.T) {
	for skip := range 20 {
		inPool(t, 2, 3, func(r *rig) {
			for _, i := range []string{"eth0", "eth1", "eth2"} {
				r.attach("db", i)
				synctest.Wait()
			}
			r.conn.CrashAt("after update", skip)
			for _, i := range []string{"eth0", "eth1", "eth2"} {
				go r.orch.Attach(r.t.Context(), request("web", i))       //nolint:errcheck // the outcome is looked at
				go r.orch.DetachKey(r.t.Context(), request("db", i).Key) //nolint:errcheck // the outcome is looked at
			}
			synctest.Wait()
			r.restart()
			r.settleDown()
			r.settled()
		})
	}
}

// TestRestartWithPool changes the world while no daemon runs.
func TestRestartWithPool(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig, id vnic.ID)
		kept bool
	}{
		{"nothing happened", func(*rig, vnic.ID) {}, true},
		{"bridged", func(r *rig, id vnic.ID) { r.world.Bridge(id) }, true},
		{"soiled", func(r *rig, id vnic.ID) { r.world.Taint("vm1", id, "vlan", false) }, true},
		{"soiled for good", func(r *rig, id vnic.ID) { r.world.Taint("vm1", id, "vlan", true) }, false},
		{"taken by somebody in the guest", func(r *rig, id vnic.ID) { r.world.TakeIn("vm1", id, "web", "x0") }, false},
		{"ejected", func(r *rig, id vnic.ID) { r.world.Eject("vm1", id) }, false},
		{"tap deleted", func(r *rig, id vnic.ID) { r.world.DeleteTap(id) }, false},
		{"vm restarted", func(r *rig, _ vnic.ID) { r.world.Boot("vm1", "web", "db") }, false},
		{"vm gone", func(r *rig, _ vnic.ID) { r.world.Kill("vm1") }, false},
		{"agent away", func(r *rig, _ vnic.ID) { r.world.StopAgent("vm1") }, true},
		{"agent restarted", func(r *rig, _ vnic.ID) { r.world.StopAgent("vm1"); r.world.StartAgent("vm1") }, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inPool(t, 2, 2, func(r *rig) {
				ids := r.parked()
				r.conn.Crash()
				c.do(r, ids[0])
				r.restart()
				r.settleDown()
				assert.Equal(r.t, c.kept, slices.Contains(r.parked(), ids[0]))
				r.world.Revive("vm1")
				r.settleDown()
				r.settled()
			})
		})
	}
}

// TestRestartOfSilentHostWithPool: nothing is concluded from silence.
func TestRestartOfSilentHostWithPool(t *testing.T) {
	inPool(t, 2, 2, func(r *rig) {
		ids := r.parked()
		r.world.Fail("ports", errBoom)
		r.restart()
		r.settleDown()
		assert.Equal(r.t, ids, r.parked())
		r.world.Fail("ports", nil)
		r.settleDown()
		assert.Equal(r.t, ids, r.parked())
		r.settled()
	})
}

// TestVMLifeWithPool restarts the VM under a pool and its attachments.
func TestVMLifeWithPool(t *testing.T) {
	inPool(t, 2, 3, func(r *rig) {
		r.attach("web", "eth0")
		synctest.Wait()
		r.world.Kill("vm1")
		synctest.Wait()
		r.nothingLeft()
		st := r.status()
		assert.Zero(r.t, st.Parked)
		require.ErrorIs(r.t, r.orch.Ready(r.t.Context(), "vm1", "blue"), vnic.ErrVMGone)
		r.world.Boot("vm1", "web", "db")
		synctest.Wait()
		assert.NotEmpty(r.t, r.attach("web", "eth0").Device)
		synctest.Wait()
		r.settled()
	})
}

// TestReconcileWhileFilling leaves alone what is being plugged, and what was
// parked after the halves were asked.
func TestReconcileWhileFilling(t *testing.T) {
	for _, call := range []string{"", "nics"} {
		t.Run("held up after "+call, func(t *testing.T) {
			inRig(t, func(r *rig) {
				plug, goOn := make(chan struct{}), make(chan struct{})
				r.world.Before("plug", func(context.Context) error { <-plug; return nil })
				r.setPool(2, 2)
				r.world.After(call, func(context.Context) error { <-goOn; return nil })
				done := make(chan error, 1)
				go func() { done <- r.orch.Reconcile(r.t.Context(), "vm1") }()
				synctest.Wait()
				close(plug)
				synctest.Wait()
				r.world.After(call, nil)
				close(goOn)
				require.NoError(r.t, <-done)
				synctest.Wait()
				r.settled()
				assert.Equal(r.t, 2, r.world.Calls("plug"))
				assert.Zero(r.t, r.world.Calls("unplug"))
			})
		})
	}
}

// TestAttachWhileRefreshed takes no vNIC that is made like new again at that moment.
func TestAttachWhileRefreshed(t *testing.T) {
	inPool(t, 2, 3, func(r *rig) {
		goOn := make(chan struct{})
		r.world.Before("retrieve", func(context.Context) error { <-goOn; return nil })
		r.world.StopAgent("vm1")
		r.world.StartAgent("vm1")
		synctest.Wait()
		assert.Equal(r.t, 2, r.status().Filling)
		assert.Empty(r.t, r.attach("web", "eth0").Device)
		close(goOn)
		synctest.Wait()
		r.settled()
	})
}

// TestGCOfPools litters the store and the world.
func TestGCOfPools(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		ids := r.parked()
		r.world.DeleteTap(ids[0])
		r.world.Bridge(ids[1])
		r.litterPool("00000000aa", "vm1", "taken", "00000000ff")
		r.litterPool("00000000bb", "vm8", "parked", "")
		r.litterPool("00000000cc", "vm1", "draining", "")
		want := []string{
			"tap " + ids[1].TapName() + " of parked vnic " + string(ids[1]) + " of pool vm1/blue is in a bridge",
			"vnic " + string(ids[0]) + " of pool vm1/blue without its device or tap",
			"vnic 00000000aa of pool vm1/blue taken by no attachment",
			"vnic 00000000bb of pool vm8/blue of an unknown vm",
			"vnic 00000000cc of pool vm1/blue stuck in state draining",
		}
		got, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.ElementsMatch(r.t, want, got)
		got, err = r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.ElementsMatch(r.t, want, got)
		synctest.Wait()
		r.settled()
	})
}

// TestRefreshOnce makes parked vNICs like new again once in a session with the
// agent, unless they don't look like that.
func TestRefreshOnce(t *testing.T) {
	inPool(t, 2, 3, func(r *rig) {
		a := r.attach("web", "eth0")
		synctest.Wait()
		r.detach(a)
		synctest.Wait()
		require.Equal(r.t, 3, r.status().Parked)
		calls := r.world.Calls("retrieve")
		reconcile := func(want int) {
			r.t.Helper()
			require.NoError(r.t, r.orch.Reconcile(r.t.Context(), "vm1"))
			synctest.Wait()
			assert.Equal(r.t, want, r.world.Calls("retrieve")-calls)
			r.settled()
		}
		reconcile(0)
		r.world.StopAgent("vm1")
		r.world.StartAgent("vm1")
		reconcile(3)
		reconcile(3)
		r.world.SetUp("vm1", r.parked()[0])
		reconcile(4)
		r.restart()
		reconcile(7)
	})
}

// TestCrashRemovePool unplugs what a pool had whose removal was cut short, whether the
// guest's agent is there or not.
func TestCrashRemovePool(t *testing.T) {
	inPool(t, 2, 2, func(r *rig) {
		_, err := r.store.Update(r.t.Context(), func(tx store.Tx) error { return tx.Delete("pool/vm1/blue") })
		require.NoError(r.t, err)
		r.world.StopAgent("vm1")
		r.restart()
		synctest.Wait()
		r.nothingLeft()
	})
}
