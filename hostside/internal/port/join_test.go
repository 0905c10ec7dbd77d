package port_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationPortOfOverlay shows that a tap is silent but at an overlay's bridge,
// which would not answer for remote pods through a silent one.
func TestIntegrationPortOfOverlay(t *testing.T) {
	ns := netnstest.New(t)
	l := newLinks(t, ns)
	n := network(t, func(n *vnic.Network) { n.Kind = vnic.KindOverlay })
	require.NoError(t, l.SetNetwork(t.Context(), n))
	p := plug(n)
	tap, err := l.OpenTap(t.Context(), p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tap.Close()) })
	silent := func(want bool, when string) {
		t.Helper()
		assert.Equal(t, want, strings.Contains(ns.Run("ip", "link", "show", tap.Name), "NOARP"), when)
	}
	silent(true, "made")
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	silent(false, "joined")
	require.NoError(t, l.Park(t.Context(), p.ID))
	silent(true, "parked")
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	silent(false, "joined again")
	require.NoError(t, l.Leave(t.Context(), p.ID))
	silent(true, "left")
}
