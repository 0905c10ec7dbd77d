package orchestrator_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestBridgeDeleted deletes a bridge by hand while a vNIC is a port of it. Each
// of the ways out gives both back.
func TestBridgeDeleted(t *testing.T) {
	cases := []struct {
		name string
		do   func(r *rig) error
	}{
		{"reconcile", func(r *rig) error { return r.orch.Reconcile(r.t.Context(), "vm1") }},
		{"create the network again", func(r *rig) error {
			_, err := r.orch.CreateNetwork(r.t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")})
			return err
		}},
		{"attach again", func(r *rig) error {
			_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
			return err
		}},
		{"gc", func(r *rig) error {
			_, err := r.orch.GC(r.t.Context(), false)
			return err
		}},
		{"restart", func(r *rig) error { r.restart(); return nil }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				r.attach("web", "eth0")
				before := r.world.String()
				r.world.DeleteBridge("blue")
				require.Contains(r.t, r.world.String(), "in no bridge")
				require.NoError(r.t, c.do(r))
				synctest.Wait()
				assert.Equal(r.t, before, r.world.String())
				assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
			})
		})
	}
}

func TestBridgeDeletedIsReported(t *testing.T) {
	inRig(t, func(r *rig) {
		a := r.attach("web", "eth0")
		r.world.DeleteBridge("blue")
		broken := r.world.String()
		got, err := r.orch.GC(r.t.Context(), true)
		require.NoError(r.t, err)
		assert.Equal(r.t, []string{"tap brf" + string(a.ID) + " of attachment " + string(a.ID) + " (web/eth0 in vm1) is not up in its network's bridge"}, got)
		assert.Equal(r.t, broken, r.world.String(), "a dry run changes nothing")
	})
}

// TestBridgeCannotBeRepaired keeps the attachment, for the next try.
func TestBridgeCannotBeRepaired(t *testing.T) {
	for _, call := range []string{"setnetwork", "plug"} {
		t.Run(call, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a := r.attach("web", "eth0")
				r.world.DeleteBridge("blue")
				r.world.Fail(call, errBoom)
				err := r.orch.Reconcile(r.t.Context(), "vm1")
				require.ErrorIs(r.t, err, errBoom)
				require.ErrorContains(r.t, err, "tap brf"+string(a.ID)+" is not up in its network's bridge: repair: ")
				assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
				r.world.Fail(call, nil)
				require.NoError(r.t, r.orch.Reconcile(r.t.Context(), "vm1"))
				r.consistent()
			})
		})
	}
}

// TestPodRestartedMeanwhile has a pod be restarted, with its name, while its vNIC's port
// is being put right, by an agent that has forgotten the vNIC: the new pod must not get
// what the old one left.
func TestPodRestartedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(r *rig, a vnic.Attachment)
	}{
		{"while its ports are published again", func(r *rig, _ vnic.Attachment) { r.world.Forget() }},
		{"while its tap gets its bridge back", func(r *rig, _ vnic.Attachment) { r.world.DeleteBridge("blue") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				a, err := r.orch.Attach(r.t.Context(), publishing("web", mapping(8080, 80)))
				require.NoError(r.t, err)
				r.world.Soil("vm1", a.VNIC(), "xdp", false)
				c.trouble(r, a)
				r.world.StopAgent("vm1")
				var once sync.Once
				r.world.Before("plug", func(context.Context) error {
					once.Do(func() { r.world.KillPod("vm1", "web"); r.world.StartPod("vm1", "web") })
					return nil
				})
				r.world.StartAgent("vm1")
				r.settleDown()
				assert.Empty(r.t, r.world.Wrong())
				assert.Empty(r.t, r.list())
				r.nothingLeft()
			})
		})
	}
}
