package orchestrator_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestRecycledEverywhere covers what is done by the vNIC's id, and not by the
// attachment's: reports, repairs, publishing, events.
func TestRecycledEverywhere(t *testing.T) {
	inPool(t, 1, 2, func(r *rig) {
		req := request("web", "eth0")
		req.Ports = []vnic.PortMapping{mapping(8080, 80)}
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		synctest.Wait()
		r.settled()
		_, err = r.orch.Inspect(r.t.Context(), a.Request.Key)
		require.NoError(r.t, err)

		a, err = r.orch.Publish(r.t.Context(), a.ID, []vnic.PortMapping{mapping(8081, 80)})
		require.NoError(r.t, err)
		assert.Contains(r.t, r.world.String(), "port 8081:80/tcp of "+string(a.Device))
		r.settled()

		r.world.DeleteBridge("blue")
		_, err = r.orch.Inspect(r.t.Context(), a.Request.Key)
		require.ErrorContains(r.t, err, "its tap "+a.Device.TapName()+" is not up in the bridge of network blue")
		got, err := r.orch.GC(r.t.Context(), false)
		require.NoError(r.t, err)
		assert.Equal(r.t, []string{"tap " + a.Device.TapName() + " of attachment " + string(a.ID) + " (web/eth0 in vm1) is not up in its network's bridge"}, got)
		r.settled()

		r.world.KillPod("vm1", "web")
		synctest.Wait()
		assert.Empty(r.t, r.list(), "the agent tells the vnic's id")
		assert.Contains(r.t, r.parked(), a.Device)
		r.settled()
		assert.Zero(r.t, r.world.Calls("unplug"))
	})
}

// TestTwinOfPool registers a hypervisor again that has nothing but parked vNICs.
func TestTwinOfPool(t *testing.T) {
	inPool(t, 1, 2, func(r *rig) {
		r.world.Alias("vm1", "v7")
		require.EqualError(r.t, r.orch.AddVM(r.t.Context(), vm("v7")), "add vm v7: its QEMU is that of vm1, which has vnic "+
			string(r.parked()[0])+": use vm1, or `brfuse vm rm vm1` first: in use")
	})
}

// TestRecycledIsLost has the vNIC of a warm attachment be lost in all ways.
func TestRecycledIsLost(t *testing.T) {
	cases := []struct {
		name   string
		do     func(*rig, vnic.Attachment)
		parked bool // it is in the pool again
	}{
		{"ejected", func(r *rig, a vnic.Attachment) { r.world.Eject("vm1", a.Device) }, false},
		{"tap deleted", func(r *rig, a vnic.Attachment) {
			r.world.DeleteTap(a.Device)
			_, err := r.orch.GC(r.t.Context(), false)
			require.NoError(r.t, err)
		}, false},
		{"pod died", func(r *rig, _ vnic.Attachment) { r.world.KillPod("vm1", "web") }, true},
		{"pod died without an agent", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
			r.world.StartAgent("vm1")
		}, true},
		{"vm restarted", func(r *rig, _ vnic.Attachment) {
			r.world.Kill("vm1")
			r.world.Boot("vm1", "web", "db")
		}, false},
		{"vm restarted fast", func(r *rig, _ vnic.Attachment) { r.world.Boot("vm1", "web", "db") }, false},
		{"guest rebooted", func(r *rig, _ vnic.Attachment) {
			r.world.StopAgent("vm1")
			r.world.KillPod("vm1", "web")
			r.world.StartPod("vm1", "web")
			r.world.StartAgent("vm1")
		}, true},
	}
	for _, c := range cases {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", c.name, restart), func(t *testing.T) {
				inPool(t, 2, 4, func(r *rig) {
					a := r.attach("web", "eth0")
					synctest.Wait()
					if restart {
						r.conn.Crash()
					}
					if !restart || c.name != "tap deleted" {
						c.do(r, a)
					} else {
						r.world.DeleteTap(a.Device)
					}
					if restart {
						r.restart()
					}
					r.settleDown()
					assert.Empty(r.t, r.list())
					if c.parked && !restart { // without its agent, nobody can say that it is like new
						assert.Contains(r.t, r.parked(), a.Device)
					}
					if !c.parked {
						assert.NotContains(r.t, r.world.String(), a.Device)
					}
					r.settled()
					r.world.StartPod("vm1", "web")
					r.attach("web", "eth0")
					synctest.Wait()
					r.settled()
				})
			})
		}
	}
}

// TestReturnedTooLate has an event about a pod come when another has its vNIC.
func TestReturnedTooLate(t *testing.T) {
	inPool(t, 1, 1, func(r *rig) {
		r.setPool(0, 1)
		a := r.attach("web", "eth0")
		r.detach(a)
		b := r.attach("db", "eth0")
		require.Equal(r.t, a.Device, b.Device)
		for range 3 {
			r.orch.Notify(vnic.Event{Kind: vnic.EventReturned, VM: "vm1", ID: a.VNIC(), MAC: a.MAC})
		}
		synctest.Wait()
		assert.Equal(r.t, "vm1/db/eth0 ready", r.list())
		r.settled()
		r.detach(b)
		for _, kind := range []vnic.EventKind{vnic.EventReturned, vnic.EventRemoved} {
			r.orch.Notify(vnic.Event{Kind: kind, VM: "vm2", ID: a.VNIC(), MAC: a.MAC})
		}
		synctest.Wait()
		assert.Equal(r.t, []vnic.ID{a.VNIC()}, r.parked(), "another vm can't say anything about it")
	})
}
