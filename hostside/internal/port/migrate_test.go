package port_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationTapTakesAnothersPlace has a tap get the name of the one that it
// replaces, whoever holds that.
func TestIntegrationTapTakesAnothersPlace(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, nil)
	require.NoError(t, l.SetNetwork(t.Context(), n))
	before := ns.State()
	p := plug(n)
	name := p.ID.TapName()
	old, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, l.Join(t.Context(), name, n, p.MAC))
	coming, err := l.OpenComing(t.Context(), p)
	require.NoError(t, err)
	assert.Equal(t, name+"m", coming.Name)

	taps, err := l.Coming(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, map[vnic.ID]string{p.ID: "vm"}, taps)
	taps, err = l.Coming(t.Context(), "vm2")
	require.NoError(t, err)
	assert.Empty(t, taps)
	states, err := l.TapStates(t.Context())
	require.NoError(t, err)
	assert.Len(t, states, 1, "a tap that is to come is none yet")
	show := ns.Run("ip", "-o", "link", "show", coming.Name)
	assert.NotContains(t, show, ",UP")
	assert.NotContains(t, show, "master")
	assert.Contains(t, show, "mtu 1400")

	for _, again := range []string{"", "again"} {
		require.NoError(t, l.Come(t.Context(), p.ID), again)
		show = ns.Run("ip", "-o", "link", "show", name)
		assert.Contains(t, show, "alias brfuse vm vm network pods")
		assert.NotContains(t, show, ",UP")
		assert.NotContains(t, show, "master")
		assert.NotContains(t, ns.Run("ip", "-o", "link"), coming.Name)
	}
	require.NoError(t, l.Join(t.Context(), name, n, p.MAC))
	require.NoError(t, old.Close(), "its device is gone already")
	assert.Contains(t, ns.Run("ip", "-o", "link", "show", name), "master bf-pods")
	require.NoError(t, coming.Close())
	assert.Equal(t, before, ns.State())
}

// TestIntegrationComingTapsAreRemoved removes one that takes no one's place.
func TestIntegrationComingTapsAreRemoved(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, nil)
	p := plug(n)
	before := ns.State()
	coming, err := l.OpenComing(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, l.DeleteComing(t.Context(), p.ID))
	require.NoError(t, l.DeleteComing(t.Context(), p.ID), "again")
	require.NoError(t, l.AwaitComingGone(t.Context(), p.ID))
	assert.Equal(t, before, ns.State())
	require.NoError(t, coming.Close())
}
