package orchestrator_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
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

// TestFillFails tries again, tells why, and is done when it works.
func TestFillFails(t *testing.T) {
	cases := []struct {
		name string
		prep func(*orchestratortest.World)
		want string
		end  func(*orchestratortest.World)
	}{
		{
			"plug", func(w *orchestratortest.World) { w.Fail("plug", errBoom) }, "plug: boom",
			func(w *orchestratortest.World) { w.Fail("plug", nil) },
		},
		{
			"retrieve", func(w *orchestratortest.World) { w.Fail("retrieve", errBoom) }, "retrieve: boom",
			func(w *orchestratortest.World) { w.Fail("retrieve", nil) },
		},
		{
			"no slot", func(w *orchestratortest.World) { w.SetSlots("vm1", 0) },
			"plug: vm vm1: no free PCI slot: 0 of 0 in use; boot the vm with more, see `brfuse topology --vnics N`",
			func(w *orchestratortest.World) { w.SetSlots("vm1", 9) },
		},
		{
			"no agent", func(w *orchestratortest.World) { w.StopAgent("vm1") }, "vm vm1: guest agent unavailable",
			func(w *orchestratortest.World) { w.StartAgent("vm1") },
		},
		{
			"nic never shows", func(w *orchestratortest.World) { w.Blind("vm1") }, "vnic did not appear in the guest",
			func(w *orchestratortest.World) { w.Boot("vm1", "web", "db") },
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				c.prep(r.world)
				require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 2, High: 2}))
				r.settleDown()
				assert.Contains(r.t, r.status().LastError, c.want)
				assert.Zero(r.t, r.status().Parked)
				plugs := r.world.Calls("plug")
				r.settleDown()
				assert.LessOrEqual(r.t, r.world.Calls("plug"), plugs+8, "it backs off")
				c.end(r.world)
				r.settleDown()
				r.settled()
			})
		})
	}
}

// TestFillAndUnplugFail keeps what may still be plugged, until it is not.
func TestFillAndUnplugFail(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Fail("retrieve", errBoom)
		r.world.Fail("unplug", errBoom)
		r.setPool(1, 1)
		assert.Contains(r.t, r.leases(), "/draining/")
		r.world.Fail("retrieve", nil)
		r.world.Fail("unplug", nil)
		r.settleDown()
		r.settled()
	})
}

// TestEvict has a VM without a free slot: a cold attach gets that of a parked vNIC.
func TestEvict(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		r.world.SetSlots("vm1", 3)
		require.NoError(r.t, r.orch.Ready(r.t.Context(), "vm1", "red"))
		red := func(i int) (vnic.Attachment, error) {
			req := request("web", fmt.Sprintf("eth%d", i))
			req.Network = "red"
			return r.orch.Attach(r.t.Context(), req)
		}
		for i := range 3 {
			_, err := red(i)
			require.NoError(r.t, err)
			assert.Equal(r.t, 2-i, r.status().Parked)
		}
		_, err := red(3)
		require.ErrorIs(r.t, err, vnic.ErrNoSlot)
		require.EqualError(r.t, err, "attach web/eth3 in vm1: phase leased: plug: vm vm1: no free PCI slot: 3 of 3 in use; "+
			"boot the vm with more, see `brfuse topology --vnics N`")
		require.ErrorIs(r.t, r.orch.Ready(r.t.Context(), "vm1", "red"), vnic.ErrNoSlot)
		r.settleDown()
		r.consistent()
		assert.Contains(r.t, r.status().LastError, "no free PCI slot")
		for i := range 3 {
			_, err := r.orch.DetachKey(r.t.Context(), request("web", fmt.Sprintf("eth%d", i)).Key)
			require.NoError(r.t, err)
			synctest.Wait()
			assert.Equal(r.t, i+1, r.status().Parked, "the slot is taken as soon as it is free")
		}
		r.settled()
	})
}

// TestEvictMany has many cold attaches at once, in a VM that is full of parked
// vNICs and of some that are being plugged.
func TestEvictMany(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.SetSlots("vm1", 5)
		r.world.After("plug", func(context.Context) error { time.Sleep(30 * time.Millisecond); return nil }) //nolint:forbidigo // as long as it takes
		require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 5, High: 5}))
		time.Sleep(45 * time.Millisecond) //nolint:forbidigo // some are parked, and one is being plugged
		each(5, func(i int) {
			req := request("web", fmt.Sprintf("eth%d", i))
			req.Network = "red"
			_, err := r.orch.Attach(r.t.Context(), req)
			assert.NoError(r.t, err)
		})
		r.settleDown()
		r.consistent()
		assert.Zero(r.t, r.status().Parked)
	})
}

// TestEvictKeepsTheSlot has the pool want back the slot that an attach has made
// for itself, and is slow to use.
func TestEvictKeepsTheSlot(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		r.world.SetSlots("vm1", 1)
		var plugs atomic.Int32
		r.world.Before("plug", func(context.Context) error {
			if plugs.Add(1) == 2 {
				time.Sleep(5 * time.Second) //nolint:forbidigo // fake
			}
			return nil
		})
		req := request("web", "eth0")
		req.Network = "red"
		_, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
	})
}

// TestFillYields waits with plugging while attaches run, but not forever.
func TestFillYields(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		goOn := make(chan struct{})
		r.world.Before("move", func(context.Context) error { <-goOn; return nil })
		done := make(chan error, 1)
		go func() {
			_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
			done <- err
		}()
		synctest.Wait()
		assert.Equal(r.t, 1, r.world.Calls("plug"))
		time.Sleep(time.Second) //nolint:forbidigo // a fake second
		synctest.Wait()
		assert.Equal(r.t, 2, r.world.Calls("plug"))
		close(goOn)
		require.NoError(r.t, <-done)
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
		done := make(chan error, 1)
		go func() { done <- r.orch.Reconcile(r.t.Context(), "vm1") }()
		synctest.Wait()
		assert.Equal(r.t, 2, r.status().Filling)
		assert.Empty(r.t, r.attach("web", "eth0").Device)
		close(goOn)
		require.NoError(r.t, <-done)
		synctest.Wait()
		r.settled()
	})
}
