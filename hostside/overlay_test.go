package hostside

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationOverlayMadeAnew sets an overlay that was removed and made anew, with
// another VNI, while the host half was told nothing.
func TestIntegrationOverlayMadeAnew(t *testing.T) {
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	ns.Run("ip", "link", "set", "eth0", "up")
	before := ns.State()
	var h *Host
	ns.In(func() (err error) {
		h, err = newHost(Config{Log: slog.New(slog.DiscardHandler), Underlay: netip.MustParseAddr("192.0.2.1")}, newHypervisor().dial)
		return err
	})
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	n, err := vnic.Network{
		Name: "over", Kind: vnic.KindOverlay, VNI: 1, MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")},
	}.Complete()
	require.NoError(t, err)
	links := func() string { return ns.Run("ip", "-br", "link", "show", "type", "vxlan") }
	require.NoError(t, h.SetNetwork(t.Context(), n))
	assert.Contains(t, links(), "bfx-1 ")
	n.VNI = 2
	require.NoError(t, h.SetNetwork(t.Context(), n))
	assert.Contains(t, links(), "bfx-2 ")
	assert.NotContains(t, links(), "bfx-1 ")
	require.NoError(t, h.RemoveNetwork(t.Context(), n))
	assert.Equal(t, before, ns.State())
}
