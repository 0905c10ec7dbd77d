package orchestrator

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/vnic"
)

func TestRoutes(t *testing.T) {
	gw4, gw6 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")
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
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, routes(c.a)) })
	}
}
