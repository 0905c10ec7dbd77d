package integration

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationPoolQueues gives pods the same vNICs with two queue pairs, one after
// the other. Each turns one pair off.
func TestIntegrationPoolQueues(t *testing.T) {
	ctx, s := newSite(t, site.Options{Image: vmlab.Image{
		Modules: []string{"nf_tables"}, Programs: []string{"/usr/sbin/ethtool", "/usr/sbin/tc"},
	}})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", CPUs: 2})
	require.NoError(t, err)
	for _, pod := range []string{"web", "db"} {
		_, err := vm.AddPod(ctx, pod)
		require.NoError(t, err)
	}
	require.NoError(t, s.AddVM(ctx, vm))
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "1", "--high", "2", "--queues", "2")

	macs := map[string]int{}
	var queues, disciplines string
	for i, pod := range []string{"web", "db", "web", "db"} {
		awaitParked(ctx, t, s, min(i+1, 2))
		a := attach(ctx, t, s, "--pod", pod, "--queues", "2")
		macs[a.MAC]++
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
		assert.Contains(t, onHost(ctx, t, s, "ip", "-d", "link", "show", a.Tap), "multi_queue numqueues 2 numdisabled 0")
		q := inGuest(ctx, t, vm, pod, "ethtool", "-l", "eth0")
		d := inGuest(ctx, t, vm, pod, "tc", "qdisc", "show", "dev", "eth0")
		assert.Contains(t, d, "qdisc mq")
		if queues != "" {
			assert.Equal(t, queues, q)
			assert.Equal(t, disciplines, d)
		}
		queues, disciplines = q, d
		inGuest(ctx, t, vm, pod, "ethtool", "-L", "eth0", "combined", "1")
		run(ctx, t, s, "detach", "--pod", pod)
	}
	t.Log(queues, disciplines)
	assert.Equal(t, "4", pool(ctx, t, s).Hits)
	assert.Less(t, len(macs), 4, "vNICs are used again")
	log, err := vm.Get(ctx, "/run/log/brfuse-agent.log")
	require.NoError(t, err)
	assert.NotContains(t, string(log), "vnic got its driver anew", "another number of queues is no reason for that")
	run(ctx, t, s, "pool", "rm", "--vm", "vm1", "--network", "blue")
}
