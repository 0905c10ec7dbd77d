package integration

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// TestIntegrationPoolRing: a virtio NIC takes frames in while its link is down, until
// its ring is full. The next pod must not get what came for one that set its link down.
func TestIntegrationPoolRing(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db", "cache")
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "1", "--high", "1")
	awaitParked(ctx, t, s, 1)
	run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1")
	awaitParked(ctx, t, s, 1)
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", bluePrefix4+"2") // so that the host knows its MAC
	inGuest(ctx, t, vm, "web", "ip", "link", "set", "eth0", "down")
	const frames = 50
	_, err := s.Net.Run(ctx, "ping", "-q", "-c", strconv.Itoa(frames), "-i", "0.02", "-W", "1", bluePrefix4+"2") // nobody answers
	require.NoError(t, err)
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--high", "2")
	run(ctx, t, s, "detach", "--pod", "web")
	awaitParked(ctx, t, s, 2)

	got := -received(t, inGuest(ctx, t, vm, "", "cat", "/proc/net/dev"), "brf")
	for _, pod := range []string{"db", "cache"} { // one of them gets it
		run(ctx, t, s, "attach", "--pod", pod, "--vm", "vm1")
		got += received(t, inGuest(ctx, t, vm, pod, "cat", "/proc/net/dev"), "eth")
	}
	assert.Less(t, got, frames/2, "frames that came for the pod before")
}

// received adds up how many frames the links of a prefix have received, by what
// /proc/net/dev says.
func received(t *testing.T, table, prefix string) (all int) {
	t.Helper()
	for line := range strings.Lines(table) {
		name, numbers, _ := strings.Cut(strings.TrimSpace(line), ":")
		if f := strings.Fields(numbers); strings.HasPrefix(name, prefix) && len(f) > 1 {
			n, err := strconv.Atoi(f[1])
			require.NoError(t, err)
			all += n
		}
	}
	return all
}
