package agentconv

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

func TestThereAndBack(t *testing.T) {
	routes := []vnic.Route{
		{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.1")},
		{Destination: netip.MustParsePrefix("fd00::/64")},
	}
	for i, m := range FromRoutes(routes) {
		got, err := ToRoute(m)
		require.NoError(t, err)
		assert.Equal(t, routes[i], got)
	}
	ports := []vnic.PortMapping{
		{HostPort: 8080, Port: 80, Protocol: vnic.TCP},
		{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 53, Port: 5353, Protocol: vnic.UDP},
	}
	for i, m := range FromPorts(ports) {
		got, err := ToPort(m)
		require.NoError(t, err)
		assert.Equal(t, ports[i], got)
	}
	limits := vnic.Bandwidth{Ingress: vnic.Rate{Bits: 1e6, Burst: 1e5}, Egress: vnic.Rate{Bits: 2e6}}
	assert.Equal(t, limits, ToBandwidth(FromBandwidth(limits)))
	assert.Nil(t, FromBandwidth(vnic.Bandwidth{}))
	assert.Zero(t, ToBandwidth(nil))
}

func TestMalformed(t *testing.T) {
	route := func(m *agentv1.Route) error { _, err := ToRoute(m); return err }
	port := func(m *agentv1.PortMapping) error { _, err := ToPort(m); return err }
	for _, tt := range []struct {
		name string
		err  error
		text string
	}{
		{"nothing", route(nil), `route to "": no prefix`},
		{"no prefix", route(&agentv1.Route{Destination: "10.0.0.1"}), `route to "10.0.0.1": no prefix`},
		{"host bits", route(&agentv1.Route{Destination: "10.0.0.1/8"}), "not a network's address"},
		{"two families", route(&agentv1.Route{Destination: "10.0.0.0/8", Gateway: "fd00::1"}), "not of one family"},
		{"zone", route(&agentv1.Route{Destination: "fd00::/64", Gateway: "fe80::1%eth0"}), "route to fd00::/64: address \"fe80::1%eth0\": give a plain"},
		{"no port", port(&agentv1.PortMapping{HostPort: 1 << 16, Port: 80, Protocol: "tcp"}), "port mapping 65536:80: no ports"},
		{"no protocol", port(&agentv1.PortMapping{HostPort: 80, Port: 80, Protocol: "icmp"}), "icmp"},
		{"no host address", port(&agentv1.PortMapping{HostPort: 80, Port: 80, Protocol: "tcp", HostIp: "::ffff:10.0.0.1"}), "give a plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorIs(t, tt.err, vnic.ErrInvalid)
			assert.ErrorContains(t, tt.err, tt.text)
		})
	}
}

func TestPrintable(t *testing.T) {
	assert.Equal(t, "größe ?[31m?", Printable("größe \x1b[31m\xff"))
}
