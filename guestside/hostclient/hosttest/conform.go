package hosttest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// Site says what a host has for [Conform]: a VM without attachments or
// reservations and with three free slots at least.
type Site struct {
	// Network is one that the guest may ask for. It has an IPv4 subnet.
	Network string
	// Forbidden is a network that the guest may not ask for.
	Forbidden string
	// Pods are two that have a namespace of their name without an eth0.
	Pods [2]string
}

// Conform checks that a host does what fronts of container engines rely on. It
// leaves the host as it found it.
func Conform(t *testing.T, host Host, site Site) {
	t.Helper()
	c := conformance{Host: host, Site: site}
	c.networks(t)
	c.attach(t)
	c.handover(t)
	c.ports(t)
	c.reservations(t)
	c.refusals(t)
	list, err := host.Attachments(t.Context(), "")
	require.NoError(t, err)
	assert.Empty(t, list)
	reserved, err := host.Reservations(t.Context())
	require.NoError(t, err)
	assert.Empty(t, reserved)
}

type conformance struct {
	Host
	Site

	net vnic.Network
}

func (c *conformance) request(i int) vnic.Request {
	return vnic.Request{Key: vnic.Key{Pod: c.Pods[i], Interface: "eth0"}, Network: c.Network, Manager: "cni"}
}

func (c *conformance) networks(t *testing.T) {
	t.Helper()
	nets, err := c.Networks(t.Context())
	require.NoError(t, err)
	for _, n := range nets {
		assert.NotEqual(t, c.Forbidden, n.Name)
		if n.Name == c.Network {
			c.net = n
		}
	}
	require.NotEmpty(t, c.net.Name, "network %s is among %v", c.Network, nets)
	assert.Len(t, c.net.Gateways, len(c.net.Subnets))
	assert.NotZero(t, c.net.MTU)
	require.NoError(t, c.Ready(t.Context(), c.Network))
}

func (c *conformance) attach(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	req := c.request(0)
	req.MAC = vnic.MAC{2, 0, 0x5e, 0, 0x53, 0x77}
	req.Routes = []vnic.Route{{Destination: netip.MustParsePrefix("198.51.100.0/24"), Gateway: c.net.Gateways[0]}}
	req.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: 1_000_000, Burst: 80_000}}
	req.Labels = map[string]string{"k8s.pod": "web-0"}
	a, err := c.Attach(ctx, req)
	require.NoError(t, err)
	assert.Equal(t, vnic.PhaseReady, a.Phase)
	assert.Equal(t, req.MAC, a.MAC)
	assert.Equal(t, c.net.MTU, a.MTU)
	assert.Len(t, a.Leases, len(c.net.Subnets))
	assert.Equal(t, c.net.Gateways, a.Gateways)
	assert.Equal(t, req.Pod, a.Request.Netns, "the default")
	assert.Equal(t, req.Routes, a.Request.Routes)
	assert.Equal(t, req.Bandwidth, a.Request.Bandwidth)
	assert.Equal(t, req.Labels, a.Request.Labels)

	again, err := c.Attach(ctx, req)
	require.NoError(t, err)
	assert.Equal(t, a.ID, again.ID)
	other := req
	other.NoDefaultRoute = true
	_, err = c.Attach(ctx, other)
	require.ErrorIs(t, err, vnic.ErrConflict)
	taken := c.request(1)
	taken.Addresses = []netip.Addr{a.Leases[0].Addr()}
	_, err = c.Attach(ctx, taken)
	require.ErrorIs(t, err, vnic.ErrAddressTaken)

	checked, err := c.Check(ctx, req.Pod, req.Interface)
	require.NoError(t, err)
	assert.Equal(t, a.ID, checked.ID)
	for manager, want := range map[string]int{"": 1, "cni": 1, "docker": 0} {
		list, err := c.Attachments(ctx, manager)
		require.NoError(t, err)
		assert.Len(t, list, want, "manager %q", manager)
	}
	for range 3 {
		require.NoError(t, c.Detach(ctx, req.Pod, req.Interface))
	}
	_, err = c.Check(ctx, req.Pod, req.Interface)
	require.ErrorIs(t, err, vnic.ErrNotFound)
}

func (c *conformance) handover(t *testing.T) {
	t.Helper()
	req := c.request(0)
	req.Pod, req.Manager, req.Handover = "endpoint0", "docker", true
	a, err := c.Attach(t.Context(), req)
	require.NoError(t, err)
	assert.True(t, a.Request.Handover)
	assert.Empty(t, a.Request.Netns)
	req.Netns = "web"
	_, err = c.Attach(t.Context(), req)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.NoError(t, c.Detach(t.Context(), req.Pod, req.Interface))
}

func (c *conformance) ports(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	web, db := c.request(0), c.request(1)
	web.Ports = []vnic.PortMapping{{HostPort: 18080, Port: 80, Protocol: vnic.TCP}}
	_, err := c.Attach(ctx, web)
	require.NoError(t, err)
	db.Ports = web.Ports
	_, err = c.Attach(ctx, db)
	require.ErrorIs(t, err, vnic.ErrPortTaken)
	db.Ports = nil
	_, err = c.Attach(ctx, db)
	require.NoError(t, err)
	require.ErrorIs(t, c.Publish(ctx, db.Pod, db.Interface, web.Ports), vnic.ErrPortTaken)
	require.NoError(t, c.Publish(ctx, web.Pod, web.Interface, nil))
	require.NoError(t, c.Publish(ctx, db.Pod, db.Interface, web.Ports))
	a, err := c.Check(ctx, db.Pod, db.Interface)
	require.NoError(t, err)
	assert.Equal(t, web.Ports, a.Request.Ports)
	low := []vnic.PortMapping{{HostPort: 22, Port: 80, Protocol: vnic.TCP}}
	require.ErrorIs(t, c.Publish(ctx, db.Pod, db.Interface, low), vnic.ErrForbidden)
	for _, r := range []vnic.Request{web, db} {
		require.NoError(t, c.Detach(ctx, r.Pod, r.Interface))
	}
	require.ErrorIs(t, c.Publish(ctx, db.Pod, db.Interface, web.Ports), vnic.ErrNotFound)
}

func (c *conformance) reservations(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	p, err := c.Reserve(ctx, c.Network, netip.Addr{}, false)
	require.NoError(t, err)
	assert.Equal(t, c.net.Subnets[0].Bits(), p.Bits())
	assert.True(t, c.net.Subnets[0].Contains(p.Addr()))
	same, err := c.Reserve(ctx, c.Network, p.Addr(), false)
	require.NoError(t, err)
	assert.Equal(t, p, same)
	_, err = c.Reserve(ctx, c.Network, netip.MustParseAddr("192.0.2.1"), false)
	require.ErrorIs(t, err, vnic.ErrAddressOutside)
	list, err := c.Reservations(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, p.Addr(), list[0].Address)
	assert.Less(t, time.Since(list[0].Since).Abs(), time.Hour)

	req := c.request(0)
	req.Addresses = []netip.Addr{p.Addr()}
	_, err = c.Attach(ctx, req)
	require.ErrorIs(t, err, vnic.ErrAddressTaken, "cni has reserved nothing")
	req.Pod, req.Manager, req.Handover = "endpoint1", "docker", true
	a, err := c.Attach(ctx, req)
	require.NoError(t, err)
	assert.Equal(t, p, a.Leases[0])
	list, err = c.Reservations(ctx)
	require.NoError(t, err)
	assert.Empty(t, list, "the attachment has taken it over")
	require.NoError(t, c.Unreserve(ctx, c.Network, []netip.Addr{p.Addr()}))
	_, err = c.Check(ctx, req.Pod, req.Interface)
	require.NoError(t, err, "unreserve is not detach")
	require.NoError(t, c.Detach(ctx, req.Pod, req.Interface))

	p, err = c.Reserve(ctx, c.Network, p.Addr(), false)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, c.Unreserve(ctx, c.Network, []netip.Addr{p.Addr()}))
	}
}

func (c *conformance) refusals(t *testing.T) {
	t.Helper()
	for _, tt := range []struct {
		name string
		edit func(r *vnic.Request)
		want error
	}{
		{"manager", func(r *vnic.Request) { r.Manager = "" }, vnic.ErrForbidden},
		{"other manager", func(r *vnic.Request) { r.Manager = "root" }, vnic.ErrForbidden},
		{"forbidden network", func(r *vnic.Request) { r.Network = c.Forbidden }, vnic.ErrForbidden},
		{"pod", func(r *vnic.Request) { r.Pod = "../etc" }, vnic.ErrInvalid},
		{"interface", func(r *vnic.Request) { r.Interface = "lo" }, vnic.ErrInvalid},
		{"address", func(r *vnic.Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")} }, vnic.ErrAddressOutside},
		{"gateway's address", func(r *vnic.Request) { r.Addresses = c.net.Gateways[:1] }, vnic.ErrAddressTaken},
		{"mtu", func(r *vnic.Request) { r.MTU = 9000 }, vnic.ErrInvalid},
		{"low port", func(r *vnic.Request) { r.Ports = []vnic.PortMapping{{HostPort: 22, Port: 22, Protocol: vnic.TCP}} }, vnic.ErrForbidden},
		{"bandwidth", func(r *vnic.Request) { r.Bandwidth.Egress.Bits = 1 }, vnic.ErrInvalid},
		{"labels", func(r *vnic.Request) { r.Labels = map[string]string{"": "x"} }, vnic.ErrInvalid},
	} {
		req := c.request(0)
		tt.edit(&req)
		_, err := c.Attach(t.Context(), req)
		require.ErrorIs(t, err, tt.want, tt.name)
	}
	require.ErrorIs(t, c.Ready(t.Context(), c.Forbidden), vnic.ErrForbidden)
}
