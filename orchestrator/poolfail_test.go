//go:build failpoints

package orchestrator_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// TestPoolFailpoints has an error at each point of what is done with a pool. Then
// all ends as it should.
func TestPoolFailpoints(t *testing.T) {
	cases := []struct {
		point string
		want  string // how an attach and a detach end
	}{
		{"attach.taken", "attach web/eth0 in vm1: phase plugged: failpoint attach.taken"},
		{"attach.unparked", "attach web/eth0 in vm1: phase plugged: failpoint attach.unparked"},
		{"attach.moved", "attach web/eth0 in vm1: phase plugged: failpoint attach.moved"},
		{"park.host", ""},
		{"park.guest", ""},
		{"park.parked", "detach web/eth0 in vm1: failpoint park.parked"},
		{"fill.recorded", ""},
		{"fill.plugged", ""},
		{"fill.retrieved", ""},
		{"fill.parked", ""},
		{"drain.recorded", ""},
		{"drain.unplugged", ""},
	}
	for _, c := range cases {
		t.Run(c.point, func(t *testing.T) {
			inPool(t, 2, 3, func(r *rig) {
				r.t.Setenv(failpoint.Env, c.point+"=error")
				got := ""
				_, err := r.orch.Attach(r.t.Context(), request("web", "eth0"))
				if err == nil {
					_, err = r.orch.DetachKey(r.t.Context(), request("web", "eth0").Key)
				}
				if err != nil {
					got = err.Error()
				}
				assert.True(r.t, strings.HasPrefix(got, c.want), got)
				assert.Equal(r.t, c.want == "", got == "", got)
				_ = r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 1, High: 1})
				r.settleDown()
				_ = r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 3, High: 3})
				r.settleDown()
				synctest.Wait()
				r.t.Setenv(failpoint.Env, "")
				r.settleDown()
				assert.Empty(r.t, r.list())
				r.settled()
				require.NoError(r.t, r.orch.RemovePool(r.t.Context(), "vm1", "blue"))
				r.nothingLeft()
			})
		})
	}
}
