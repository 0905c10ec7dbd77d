package integration

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// poolState is what `brfuse pool list` tells of the only pool.
type poolState struct {
	Parked, Filling, InUse int
	Hits, Misses           string // JSON has 64-bit numbers as strings
	LastError              string
}

func pool(ctx context.Context, t *testing.T, s *site.Site) poolState {
	t.Helper()
	var got struct{ Pools []poolState }
	require.NoError(t, json.Unmarshal([]byte(run(ctx, t, s, "pool", "list", "-o", "json")), &got))
	require.Len(t, got.Pools, 1)
	return got.Pools[0]
}

// awaitParked waits until so many vNICs are parked.
func awaitParked(ctx context.Context, t *testing.T, s *site.Site, n int) {
	t.Helper()
	require.NoError(t, site.Until(ctx, "parked vNICs", func(ctx context.Context) (bool, error) {
		return pool(ctx, t, s).Parked == n, nil
	}))
}

// TestIntegrationPool: an attach takes a parked vNIC, and a detach gives it back.
func TestIntegrationPool(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db")
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "2", "--high", "3")
	awaitParked(ctx, t, s, 2)

	out := run(ctx, t, s, "attach", "--pod", "web", "--vm", "vm1")
	t.Log(out)
	assert.Contains(t, out, "unpark", "the attach was not made from the pool")
	assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "addr", "show", "eth0"), "UP")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", bluePrefix4+"2")
	awaitParked(ctx, t, s, 2)
	out = run(ctx, t, s, "detach", "--pod", "web")
	t.Log(out, run(ctx, t, s, "pool", "list"))
	awaitParked(ctx, t, s, 3)
	assert.Equal(t, "1", pool(ctx, t, s).Hits)
	run(ctx, t, s, "pool", "rm", "--vm", "vm1", "--network", "blue")
	tr, err := s.Settle(ctx, vm)
	require.NoError(t, err)
	assert.Empty(t, tr.Devices)
}
