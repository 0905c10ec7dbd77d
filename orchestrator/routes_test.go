package orchestrator

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/vnic"
)

func TestRoutes(t *testing.T) {
	gw4, gw6 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")
	more := vnic.Route{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: gw4}
	other := vnic.Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.254")}
	cases := []struct {
		name string
		a    vnic.Attachment
		want []vnic.Route
	}{
		{"ipv4", vnic.Attachment{Gateways: []netip.Addr{gw4}}, []vnic.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gw4}}},
		{"both", vnic.Attachment{Gateways: []netip.Addr{gw6, gw4}}, []vnic.Route{
			{Destination: netip.MustParsePrefix("::/0"), Gateway: gw6},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gw4},
		}},
		{"none wanted", vnic.Attachment{Gateways: []netip.Addr{gw4}, Request: vnic.Request{NoDefaultRoute: true}}, nil},
		{"more of them", vnic.Attachment{Gateways: []netip.Addr{gw4}, Request: vnic.Request{Routes: []vnic.Route{more}}}, []vnic.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gw4}, more,
		}},
		{"only more", vnic.Attachment{Gateways: []netip.Addr{gw4}, Request: vnic.Request{NoDefaultRoute: true, Routes: []vnic.Route{more}}}, []vnic.Route{more}},
		{"another default", vnic.Attachment{Gateways: []netip.Addr{gw4, gw6}, Request: vnic.Request{Routes: []vnic.Route{other}}}, []vnic.Route{
			{Destination: netip.MustParsePrefix("::/0"), Gateway: gw6}, other,
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, routes(c.a)) })
	}
}

func TestMoveAndPlug(t *testing.T) {
	a := vnic.Attachment{
		ID: "0123456789", MTU: 1400, Leases: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
		Request: vnic.Request{
			Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Network: "blue", Queues: 2, Netns: "web",
			Ports: []vnic.PortMapping{{HostPort: 80, Port: 8080, Protocol: vnic.TCP}}, Bandwidth: vnic.Bandwidth{Egress: vnic.Rate{Bits: 1e6}},
		},
	}
	m := move(a)
	assert.Equal(t, a.Leases, m.Addresses)
	assert.Len(t, m.Routes, 1)
	p := plug(a)
	assert.Equal(t, a.Request.Ports, p.Ports)
	assert.Equal(t, a.Request.Bandwidth, p.Bandwidth)
	a.Request.Handover, a.Request.Netns = true, ""
	assert.Equal(t, vnic.Move{ID: "0123456789", Interface: "eth0", MTU: 1400, Queues: 2, Handover: true}, move(a))
}
