package integration

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// TestIntegrationRestarts: traffic goes on without a daemon, and the next one
// finds all as it was; one daemon outlives a QEMU.
func TestIntegrationRestarts(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web")
	a := attach(ctx, t, s, "--pod", "web")
	s.KillDaemon()
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
	require.NoError(t, s.StartDaemon(ctx))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	assert.Equal(t, []string{a.ID}, settled(ctx, t, s, vm).Store)
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(true))

	require.NoError(t, vm.Restart(ctx)) // kills QEMU
	awaitGone(ctx, t, s, a.ID)
	_, err := vm.AddPod(ctx, "web")
	require.NoError(t, err)
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	assertWorks(ctx, t, s, vm)

	out := run(ctx, t, s, "doctor")
	assert.Contains(t, out, "nftables has all that is needed")
	assert.Contains(t, out, "none", "no leftovers")
	assertNothingLeft(ctx, t, s, vm)
}
