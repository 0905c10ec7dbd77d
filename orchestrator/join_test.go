package orchestrator_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// TestTwinHypervisors: each hypervisor needs a name and an underlay of its own.
func TestTwinHypervisors(t *testing.T) {
	inCluster(t, 2, func(c cluster) {
		t, hs := c.t, c.hs
		cfg, own := hs[0].cfg, *hs[0].cfg.Cluster
		cfg.Cluster = &own
		own.Self.Underlay = netip.MustParseAddr("192.0.2.99")
		_, err := orchestrator.New(t.Context(), cfg)
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "a hypervisor a is alive, with underlay 192.0.2.1")
		own.Self.Underlay, own.Self.Boot = netip.MustParseAddr("192.0.2.1"), "other"
		_, err = orchestrator.New(t.Context(), cfg)
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "a hypervisor a is alive, on another machine")
		own.Self = vnic.Hypervisor{Name: "z", Underlay: netip.MustParseAddr("192.0.2.1")}
		_, err = orchestrator.New(t.Context(), cfg)
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "underlay 192.0.2.1 is that of hypervisor a")
		own.Self.Underlay = netip.MustParseAddr("2001:db8::9")
		_, err = orchestrator.New(t.Context(), cfg)
		require.ErrorIs(t, err, vnic.ErrInvalid)
		require.ErrorContains(t, err, "join as hypervisor z: underlay 2001:db8::9 is not of the same family as 192.0.2.1 of hypervisor a")
		for _, h := range hs {
			h.crash()
		}
		cfg.Store = c.shared
		_, err = orchestrator.New(t.Context(), cfg)
		require.ErrorContains(t, err, "hosts rm a", "one that is new does not come before those that are off")
		hs[0].cfg.Cluster.Self.Underlay = netip.MustParseAddr("2001:db8::1")
		hs[0].start()
		hs[1].start()
	})
}
