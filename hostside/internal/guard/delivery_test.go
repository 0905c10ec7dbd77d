package guard_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

// A vNIC of a pool keeps its MAC from one pod to the next: neighbours that remember
// it for the address of the former one must not reach the next.
func TestIntegrationDelivery(t *testing.T) { onEither(t, delivery) }

func delivery(t *testing.T, s *segment) {
	t.Helper()
	const former4, former6 = "10.9.0.77", "fd00:9::77"
	const mixed = "fd00:9::a09:3:0:0" // where a packet of IPv4 has its destination, this has 10.9.0.3
	sender := s.g.Port(s.a.id.TapName())
	sender.Addresses = append(sender.Addresses, netip.MustParseAddr(mixed))
	require.NoError(t, s.g.SetPort(t.Context(), sender))
	udp := frametest.UDP(1, 2)
	group4, group6 := vnic.MAC{1, 0, 0x5e, 0, 0, 0xfb}, vnic.MAC{0x33, 0x33, 0, 0, 0, 0xfb}
	var dropped uint64
	for _, tt := range []struct {
		name   string
		frame  []byte
		passes bool
	}{
		{"its ipv4 address", frametest.Ether(s.a.mac, s.b.mac, pIP4, frametest.IP4(aIP4, bIP4, pUDP, udp)), true},
		{"its ipv6 address", frametest.Ether(s.a.mac, s.b.mac, pIP6, frametest.IP6(aIP6, bIP6, pUDP, udp)), true},
		{"its link-local address", frametest.Ether(s.a.mac, s.b.mac, pIP6, frametest.IP6(s.a.ll, s.b.ll, pUDP, udp)), true},
		{"another ipv4 address", frametest.Ether(s.a.mac, s.b.mac, pIP4, frametest.IP4(aIP4, former4, pUDP, udp)), false},
		{"another ipv6 address, from one with bytes of its ipv4 address", frametest.Ether(s.a.mac, s.b.mac, pIP6, frametest.IP6(mixed, former6, pUDP, udp)), false},
		{"another ipv6 address", frametest.Ether(s.a.mac, s.b.mac, pIP6, frametest.IP6(aIP6, former6, pUDP, udp)), false},
		{"arp", frametest.Ether(s.a.mac, s.b.mac, pARP, frametest.ARP(1, s.a.mac, aIP4, former4)), true},
		{"broadcast", frametest.Ether(s.a.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, "255.255.255.255", pUDP, udp)), true},
		{"multicast ipv4", frametest.Ether(s.a.mac, group4, pIP4, frametest.IP4(aIP4, "224.0.0.251", pUDP, udp)), true},
		{"multicast ipv6", frametest.Ether(s.a.mac, group6, pIP6, frametest.IP6(aIP6, "ff02::fb", pUDP, udp)), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := s.passes(t, tt.frame)
			assert.Equal(t, tt.passes, got)
			if !tt.passes {
				dropped++
			}
			counters, err := s.g.Counters(t.Context())
			require.NoError(t, err)
			assert.Equal(t, dropped, counters[guard.ReasonDestination].Packets)
		})
	}
}
