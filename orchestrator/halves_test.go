package orchestrator

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/vnic"
)

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
