package integration

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

type attachment = site.Attachment

func attach(ctx context.Context, t *testing.T, s *site.Site, args ...string) attachment {
	t.Helper()
	var a attachment
	require.NoError(t, s.BrfuseJSON(ctx, &a, append([]string{"attach", "--vm", "vm1"}, args...)...))
	require.Equal(t, "ready", a.Phase)
	return a
}

// settled waits until all places agree and nothing is on its way, and returns
// what they have.
func settled(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM) site.Truths {
	t.Helper()
	tr, err := s.Settle(ctx, vm)
	require.NoError(t, err)
	return tr
}

// assertNothingLeft checks that nothing of any attachment is anywhere.
func assertNothingLeft(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM) {
	t.Helper()
	tr, err := s.LookAround(ctx, vm)
	require.NoError(t, err)
	assert.Equal(t, site.Truths{}, tr)
	assert.Contains(t, run(ctx, t, s, "gc", "--dry-run"), "nothing to remove")
}
