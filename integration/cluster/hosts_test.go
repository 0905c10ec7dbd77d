package cluster

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// TestIntegrationClusterHosts asks one hypervisor for what another has, and for what
// all have.
func TestIntegrationClusterHosts(t *testing.T) {
	ctx, r := open(t)
	createBlue(ctx, t, r.c)
	for _, h := range r.all() {
		r.b.awaitState(ctx, t, h, "alive")
	}
	web := attach(ctx, t, r.a, "web")
	_, err := r.b.vm.AddPod(ctx, "far")
	require.NoError(t, err)
	var far site.Attachment
	require.NoError(t, r.a.BrfuseJSON(ctx, &far, "attach", "--vm", r.b.vm.Name(), "--pod", "far"), "forwarded to the owner of the vm")
	reaches(ctx, t, r.b, "far", web.Addr(false))

	for _, h := range r.all() {
		on := map[string]string{}
		for _, a := range h.listAll(ctx, t) {
			on[a.Pod] = a.Hypervisor
			assert.False(t, a.Dead, a.Pod)
		}
		assert.Equal(t, map[string]string{"web": r.a.name, "far": r.b.name}, on, "at %s", h.name)
	}
	own, err := r.c.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, own)

	run(ctx, t, r.c, "detach", "--vm", r.b.vm.Name(), "--pod", "far")
	require.NoError(t, r.b.vm.RemovePod(ctx, "far"))
	assert.Len(t, r.a.listAll(ctx, t), 1)
}
