package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// TestIntegrationHostilePod has root in a pod do to its vNIC what it can. Others
// don't feel it, and what is returned is known all the same.
func TestIntegrationHostilePod(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db")
	attach(ctx, t, s, "--pod", "web")
	db := attach(ctx, t, s, "--pod", "db")
	inGuest(ctx, t, vm, "web", "sh", "-ec", `
		ip link set eth0 down
		ip link set eth0 address 02:11:22:33:44:55
		n=$(printf 'x\377\001')
		ip link set eth0 name "$n"
		for i in $(seq 400); do printf 'link property add dev %s altname %0120d\n' "$n" $i; done > /tmp/names
		ip -batch /tmp/names
		for i in $(seq 80); do ip addr add 10.77.0.$i/32 dev "$n"; done
		ip link set lo down
		ip link set lo name eth0`)
	s.KillDaemon()
	require.NoError(t, s.StartDaemon(ctx))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	settled(ctx, t, s, vm)
	assert.Contains(t, run(ctx, t, s, "list"), "db")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", db.Addr(false))

	assert.NotContains(t, s.LogTail(), "task failed", "one pod spoils the reconciliation of all")
	assert.NotContains(t, s.LogTail(), "agent is away", "one pod ends the session of all")
	require.NoError(t, vm.RemovePod(ctx, "web"))
	require.NoError(t, site.Until(ctx, "web's vnic to be released", func(ctx context.Context) (bool, error) {
		out, err := s.MustBrfuse(ctx, "list")
		return !strings.Contains(out, "web"), err
	}))
	run(ctx, t, s, "detach", "--pod", "db")
	attach(ctx, t, s, "--pod", "db") // the agent still sees vNICs come
	run(ctx, t, s, "detach", "--pod", "db")
	assertNothingLeft(ctx, t, s, vm)
}
