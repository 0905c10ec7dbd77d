package vnic_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func request() vnic.Request {
	return vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "shop/web-0", Interface: "eth0"}, Network: "blue"}
}

func TestRequestDefaults(t *testing.T) {
	r, err := request().Complete()
	require.NoError(t, err)
	assert.Equal(t, "shop/web-0", r.Netns)
	assert.Equal(t, 1, r.Queues)
	assert.Equal(t, 0, r.MTU, "the network's")
}

func TestRequestRefuses(t *testing.T) {
	a4, b4 := netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("10.9.0.6")
	tests := []struct {
		name string
		edit func(*vnic.Request)
		want string
	}{
		{"no vm", func(r *vnic.Request) { r.VM = "" }, "vm name is empty"},
		{"no pod", func(r *vnic.Request) { r.Pod = "" }, "pod name is empty"},
		{"pod with dots first", func(r *vnic.Request) { r.Pod = "../etc" }, "pod name"},
		{"long pod", func(r *vnic.Request) { r.Pod = strings.Repeat("p", 254) }, "longer than 253"},
		{"long interface", func(r *vnic.Request) { r.Interface = "sixteen-letters-" }, "longer than 15"},
		{"interface pattern", func(r *vnic.Request) { r.Interface = "eth%d" }, "not allowed"},
		{"loopback", func(r *vnic.Request) { r.Interface = "lo" }, "reserved"},
		{"no network", func(r *vnic.Request) { r.Network = "" }, "network name is empty"},
		{"queues", func(r *vnic.Request) { r.Queues = 257 }, "queues 257"},
		{"mtu", func(r *vnic.Request) { r.MTU = 100000 }, "mtu 100000"},
		{"two IPv4", func(r *vnic.Request) { r.Addresses = []netip.Addr{a4, b4} }, "two addresses of one family"},
		{"mapped", func(r *vnic.Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("::ffff:10.9.0.5")} }, "plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			tt.edit(&r)
			_, err := r.Complete()
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.Contains(t, err.Error(), tt.want)
		})
	}
}

func TestAttachmentSurvivesJSON(t *testing.T) {
	r, err := request().Complete()
	require.NoError(t, err)
	in := vnic.Attachment{
		ID: vnic.NewID(), Request: r, Phase: vnic.PhaseReady, MAC: vnic.NewMAC(), MTU: 1500,
		Leases: prefixes("10.9.0.5/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.9.0.1")},
	}
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	var out vnic.Attachment
	require.NoError(t, json.Unmarshal(raw, &out))
	assert.Equal(t, in, out)
}

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
		{"no gateway", vnic.Attachment{Gateways: []netip.Addr{{}}}, nil},
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
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, c.a.Routes()) })
	}
}
