package hostside

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// newMacvtapHost returns a host with VM vm and network direct, of macvtaps.
func newMacvtapHost(t *testing.T) (*Host, *hypervisor, *netnstest.NS, vnic.Network) {
	t.Helper()
	h, y, ns := newTestHost(t)
	ns.Run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far")
	ns.Run("ip", "link", "set", "wan", "up")
	ns.Run("ip", "link", "set", "far", "up")
	n, err := vnic.Network{Name: "direct", Kind: vnic.KindMacvtap, Uplink: "wan", Unaddressed: true}.Complete()
	require.NoError(t, err)
	require.NoError(t, h.SetNetwork(t.Context(), n))
	return h, y, ns, n
}

func directPlug() vnic.Plug {
	p := testPlug()
	p.Network, p.Addresses = "direct", nil
	return p
}

func TestIntegrationMacvtapLife(t *testing.T) {
	h, y, ns, n := newMacvtapHost(t)
	before := ns.State()
	p := directPlug()
	p.Queues = 2
	port, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	want := vnic.Port{VM: "vm", ID: p.ID, MAC: p.MAC, Slot: port.Slot, Tap: true, Plug: true, Bridged: true}
	assert.Equal(t, want, port)
	y.mu.Lock()
	assert.Len(t, y.devices[p.ID].files, 2)
	y.mu.Unlock()
	ports := func() []vnic.Port {
		ports, err := h.Ports(t.Context(), "vm")
		require.NoError(t, err)
		return ports
	}
	assert.Equal(t, []vnic.Port{want}, ports())
	same, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	assert.Equal(t, want, same, "a second time")
	filter := guard.Port{Tap: p.ID.TapName(), MAC: p.MAC, Open: true, Direct: true}
	assert.Equal(t, filter, h.guard.Port(filter.Tap))
	require.ErrorIs(t, h.RemoveNetwork(t.Context(), n), vnic.ErrInUse)

	require.NoError(t, h.Park(t.Context(), "vm", p.ID))
	want.Bridged = false
	assert.Equal(t, []vnic.Port{want}, ports())
	assert.Zero(t, h.guard.Port(filter.Tap))
	require.NoError(t, h.Unpark(t.Context(), p))
	want.Bridged = true
	assert.Equal(t, []vnic.Port{want}, ports())
	assert.Equal(t, filter, h.guard.Port(filter.Tap))

	y.die()
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	assert.Equal(t, before, ns.State())
	require.NoError(t, h.RemoveNetwork(t.Context(), n))
}

func TestIntegrationMacvtapThatWasLeftIsFound(t *testing.T) {
	h, y, ns, _ := newMacvtapHost(t)
	before := ns.State()
	p := directPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	y.mu.Lock()
	y.removeLocked(p.ID)
	y.mu.Unlock()
	all, err := h.Ports(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{{ID: p.ID, Tap: true, Bridged: true}}, all, "it outlives its device")
	require.NoError(t, h.Unplug(t.Context(), "", p.ID))
	assert.Equal(t, before, ns.State())
}

func TestIntegrationMacvtapRefuses(t *testing.T) {
	h, _, ns, _ := newMacvtapHost(t)
	before := ns.State()
	for _, tt := range []struct {
		name   string
		change func(*vnic.Plug)
		want   string
	}{
		{"ports", func(p *vnic.Plug) { p.Ports = []vnic.PortMapping{{Protocol: vnic.TCP, HostPort: 8080, Port: 80}} }, "port mapping"},
		{"bandwidth", func(p *vnic.Plug) { p.Bandwidth.Egress.Bits = 1_000_000 }, "network direct is of kind macvtap, where bandwidths can't be limited: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := directPlug()
			tt.change(&p)
			_, err := h.Plug(t.Context(), p)
			require.ErrorContains(t, err, tt.want)
			assert.Equal(t, before, ns.State())
		})
	}
	n, err := h.network("direct")
	require.NoError(t, err)
	err = checkKind(directPlug(), n, vnic.VM{Name: "vm", Libvirt: "qemu:///system/vm"})
	require.ErrorIs(t, err, vnic.ErrUnsupported)
	require.ErrorContains(t, err, "a vm of libvirt can't have a vnic")
	p := directPlug()
	err = h.CheckMigration(t.Context(), vnic.Migration{From: testVM, VNICs: []vnic.Plug{p}})
	require.ErrorIs(t, err, vnic.ErrUnsupported)
	require.ErrorContains(t, err, "vnic "+string(p.ID)+" is a macvtap of network direct, which can't be moved")
}

func TestIntegrationMacvtapGoesWithItsUplink(t *testing.T) {
	h, _, ns, _ := newMacvtapHost(t)
	p := directPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	ns.Run("ip", "link", "del", "wan")
	requireEvent(t, h, vnic.EventVMUp)
	ports, err := h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	require.Len(t, ports, 1)
	assert.False(t, ports[0].Tap || ports[0].Bridged)
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	assert.NotContains(t, ns.State(), p.ID.TapName())
}
