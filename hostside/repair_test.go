package hostside

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationBridgeDeleted deletes a bridge under its port: the network and
// the plug, repeated, put both back.
func TestIntegrationBridgeDeleted(t *testing.T) {
	h, y, ns := newTestHost(t)
	p := testPlug()
	port, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	ns.Run("ip", "link", "delete", "bf-pods")
	loose := port
	loose.Bridged = false
	for _, name := range []string{"vm", ""} {
		ports, err := h.Ports(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, []vnic.Port{loose}, ports)
	}

	require.NoError(t, h.SetNetwork(t.Context(), testNet))
	same, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	assert.Equal(t, port, same)
	ports, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{port}, ports)
	link := ns.Run("ip", "-d", "link", "show", p.ID.TapName())
	for _, want := range []string{"UP", "master bf-pods", "learning off", "flood off"} {
		assert.Contains(t, link, want)
	}
	addrs := ns.Run("ip", "addr", "show", "bf-pods")
	assert.Contains(t, addrs, "10.9.0.1/24")
	assert.Contains(t, addrs, "fd00:9::1/64")
	assert.Equal(t, 1, y.plugs, "the device was there all the time")
}

// TestIntegrationChangesByOthersAreTold has someone change taps behind the
// Host's back; what the Host does itself is not told.
func TestIntegrationChangesByOthersAreTold(t *testing.T) {
	h, _, ns := newTestHost(t)
	for _, tt := range []struct {
		name string
		args func(tap string) []string
	}{
		{"bridge is deleted", func(string) []string { return []string{"link", "delete", "bf-pods"} }},
		{"tap is taken from its bridge", func(tap string) []string { return []string{"link", "set", tap, "nomaster"} }},
		{"tap is set down", func(tap string) []string { return []string{"link", "set", tap, "down"} }},
		{"tap is deleted", func(tap string) []string { return []string{"link", "delete", tap} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, h.SetNetwork(t.Context(), testNet))
			p := testPlug()
			_, err := h.Plug(t.Context(), p)
			require.NoError(t, err)
			ns.Run("ip", tt.args(p.ID.TapName())...)
			requireEvent(t, h, vnic.EventVMUp)
			require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
			select {
			case ev := <-h.Events():
				assert.Fail(t, "an event too many", "%v", ev)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

// TestIntegrationTwins has one hypervisor registered as two VMs.
func TestIntegrationTwins(t *testing.T) {
	h, _, _ := newTestHost(t)
	port, err := h.Plug(t.Context(), testPlug())
	require.NoError(t, err)
	require.NoError(t, h.AddVM(t.Context(), vnic.VM{Name: "twin", QMP: "/run/twin.qmp", Channel: "/run/twin.agent"}))
	twin := port
	twin.VM = "twin"
	ports, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.ElementsMatch(t, []vnic.Port{port, twin}, ports)
}

// TestIntegrationNetworksOfAnEarlierProcess finds and removes networks that
// nobody has told this Host of.
func TestIntegrationNetworksOfAnEarlierProcess(t *testing.T) {
	ns, y := netnstest.New(t), newHypervisor()
	var h *Host
	ns.In(func() (err error) {
		h, err = newHost(Config{Log: slog.New(slog.DiscardHandler)}, y.dial)
		return err
	})
	require.NoError(t, h.SetNetwork(t.Context(), testNet))
	require.NoError(t, h.SetNetwork(t.Context(), vnic.Network{Name: "more", Bridge: "br-more", Subnets: testNet.Subnets[:1]}))
	require.NoError(t, h.Close())
	ns.Run("ip", "link", "add", "bf-other", "type", "bridge")
	ns.Run("ip", "link", "set", "bf-other", "alias", "another program's")

	again := openTestHost(t, ns, y)
	networks, err := again.Networks(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []vnic.Network{{Name: "pods", Bridge: "bf-pods"}, {Name: "more", Bridge: "br-more"}}, networks)
	for _, n := range networks {
		require.NoError(t, again.RemoveNetwork(t.Context(), n))
	}
	networks, err = again.Networks(t.Context())
	require.NoError(t, err)
	assert.Empty(t, networks)
	left := ns.State()
	assert.Contains(t, left, "bf-other")
	assert.NotContains(t, left, "bf-pods")
	assert.NotContains(t, left, "br-more")
	assert.NotContains(t, left, "table", "neither masquerading nor filter")
}
