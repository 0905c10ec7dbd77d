package guard_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

// Shorter names for the protocols that the tables below are full of.
const (
	pARP, pIP4, pIP6 = unix.ETH_P_ARP, unix.ETH_P_IP, unix.ETH_P_IPV6
	pUDP, pTCP       = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	pICMP, pICMP6    = unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6
	allNodes         = "ff02::1"
	solicited        = "ff02::1:ff00:3"
)

func TestIntegrationHonestTrafficPasses(t *testing.T) { onEither(t, honestTrafficPasses) }

func honestTrafficPasses(t *testing.T, s *segment) {
	t.Helper()
	a, b := s.a, s.b
	for _, tt := range []struct {
		name  string
		frame []byte
	}{
		{"arp request", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, aIP4, bIP4))},
		{"arp reply", frametest.Ether(a.mac, b.mac, pARP, frametest.ARP(2, a.mac, aIP4, bIP4))},
		{"arp announcement", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, aIP4, aIP4))},
		{"arp probe for its own", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, "0.0.0.0", aIP4))},
		{"ipv4 udp", frametest.Ether(a.mac, b.mac, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1000, 2000)))},
		{"ipv4 tcp", frametest.Ether(a.mac, b.mac, pIP4, frametest.IP4(aIP4, bIP4, pTCP, frametest.TCP(1000, 80)))},
		{"ipv4 ping", frametest.Ether(a.mac, b.mac, pIP4, frametest.IP4(aIP4, bIP4, pICMP, frametest.ICMP(8, make([]byte, 12))))},
		{"ipv4 dhcp client", frametest.Ether(a.mac, b.mac, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(68, 67)))},
		{"igmp report", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, "224.0.0.22", unix.IPPROTO_IGMP, frametest.ICMP(0x22, make([]byte, 12))))},
		{"ipv6 udp", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, pUDP, frametest.UDP(1000, 2000)))},
		{"ipv6 tcp", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, pTCP, frametest.TCP(1000, 80)))},
		{"ipv6 ping", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, pICMP6, frametest.ICMP(128, make([]byte, 12))))},
		{"ipv6 link-local", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(a.ll, b.ll, pUDP, frametest.UDP(1000, 2000)))},
		{"ipv6 first fragment of a ping", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, unix.IPPROTO_FRAGMENT, frametest.Fragment(pICMP6, 0, 1, frametest.ICMP(128, make([]byte, 12)))))},
		{"ipv6 last fragment of a ping", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, unix.IPPROTO_FRAGMENT, frametest.Fragment(pICMP6, 16, 0, make([]byte, 8))))},
		{"neighbour solicitation", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, solicited, pICMP6, frametest.ND(135, bIP6, frametest.Option(1, a.mac))))},
		{"neighbour solicitation without option", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, pICMP6, frametest.ND(135, bIP6)))},
		{"neighbour advertisement", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(aIP6, bIP6, pICMP6, frametest.ND(136, aIP6, frametest.Option(2, a.mac))))},
		{"neighbour advertisement, link-local", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(a.ll, bIP6, pICMP6, frametest.ND(136, a.ll)))},
		{"unsolicited advertisement", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, frametest.ND(136, aIP6, frametest.Option(2, a.mac))))},
		{"duplicate address detection", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, aIP6)))},
		{"duplicate address detection with nonce", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, a.ll, []byte{14, 1, 1, 2, 3, 4, 5, 6})))},
		{"router solicitation", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, "ff02::2", pICMP6, frametest.ICMP(133, make([]byte, 4), frametest.Option(1, a.mac))))},
		{"mld report", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, "ff02::16", 0, frametest.HopByHop(frametest.ICMP(143, make([]byte, 4)))))},
		{"mld report without address", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", "ff02::16", 0, frametest.HopByHop(frametest.ICMP(143, make([]byte, 4)))))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			neighbour, _ := s.passes(t, tt.frame)
			assert.True(t, neighbour, "the neighbour got it")
		})
	}
	counters, err := s.g.Counters(t.Context())
	require.NoError(t, err)
	for reason, n := range counters {
		assert.Zero(t, n.Packets, "dropped by %s", reason)
	}
}

func TestIntegrationForgeriesAreDropped(t *testing.T) { onEither(t, forgeriesAreDropped) }

func forgeriesAreDropped(t *testing.T, s *segment) {
	t.Helper()
	a, b := s.a, s.b
	other := vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0xee}
	na := frametest.ND(136, bIP6, frametest.Option(2, a.mac))
	for _, tt := range []struct {
		name   string
		frame  []byte
		reason guard.Reason
	}{
		{"mac of nobody", frametest.Ether(other, frametest.Broadcast, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac of the neighbour", frametest.Ether(b.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac of the host", frametest.Ether(s.br.MAC, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, aIP4, bIP4)), guard.ReasonMAC},

		{"mac of nobody, ipv6", frametest.Ether(other, frametest.Broadcast, pIP6, frametest.IP6(aIP6, bIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac of nobody, link-local", frametest.Ether(other, frametest.Broadcast, pIP6, frametest.IP6(a.ll, bIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac of nobody, dad", frametest.Ether(other, frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, aIP6))), guard.ReasonMAC},
		{"mac and ipv4 address of the neighbour", frametest.Ether(b.mac, frametest.Broadcast, pIP4, frametest.IP4(bIP4, hostIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac and ipv6 address of the neighbour", frametest.Ether(b.mac, frametest.Broadcast, pIP6, frametest.IP6(bIP6, hostIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},

		{"arp sender ip of the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, bIP4, hostIP4)), guard.ReasonARP},
		{"arp reply for the gateway", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(2, a.mac, hostIP4, bIP4)), guard.ReasonARP},
		{"arp sender mac", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, other, aIP4, bIP4)), guard.ReasonARP},
		{"arp probe for another's", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, "0.0.0.0", bIP4)), guard.ReasonARP},
		{"arp reply from nobody", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(2, a.mac, "0.0.0.0", aIP4)), guard.ReasonARP},
		{"arp cut short", frametest.Ether(a.mac, frametest.Broadcast, pARP, frametest.ARP(1, a.mac, aIP4, bIP4)[:10]), guard.ReasonARP},
		{"arp of another protocol", frametest.Ether(a.mac, frametest.Broadcast, pARP, append([]byte{0, 1, 0x86, 0xdd, 6, 4}, frametest.ARP(1, a.mac, aIP4, bIP4)[6:]...)), guard.ReasonARP},

		{"ipv4 source of the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4(bIP4, hostIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonIPv4},
		{"ipv4 source outside", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4("192.0.2.1", bIP4, pTCP, frametest.TCP(1, 2))), guard.ReasonIPv4},
		{"ipv4 source zero", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4("0.0.0.0", "255.255.255.255", pUDP, frametest.UDP(68, 67))), guard.ReasonIPv4},
		{"ipv4 malformed", frametest.Ether(a.mac, frametest.Broadcast, pIP4, append([]byte{0x41}, frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(67, 68))[1:]...)), guard.ReasonIPv4},

		{"ipv6 source of the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(bIP6, hostIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonIPv6},
		{"ipv6 link-local of the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(b.ll, hostIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonIPv6},
		{"ipv6 source outside", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("2001:db8::1", bIP6, pTCP, frametest.TCP(1, 2))), guard.ReasonIPv6},
		{"ipv6 unspecified udp", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", allNodes, pUDP, frametest.UDP(1, 2))), guard.ReasonIPv6},
		{"ipv6 too long", frametest.Ether(a.mac, frametest.Broadcast, pIP6, append([]byte{0x60, 0, 0, 0, 0x40, 0}, frametest.IP6(aIP6, bIP6, pUDP, frametest.UDP(1, 2))[6:]...)), guard.ReasonIPv6},

		{"na for the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, na)), guard.ReasonND},
		{"na for the gateway", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, frametest.ND(136, hostIP6))), guard.ReasonND},
		{"na with another's mac", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, frametest.ND(136, aIP6, frametest.Option(2, other)))), guard.ReasonND},
		{"na with a second option", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, frametest.ND(136, aIP6, frametest.Option(2, a.mac), frametest.Option(2, other)))), guard.ReasonND},
		{"na behind destination options", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, unix.IPPROTO_DSTOPTS, frametest.DestinationOptions(pICMP6, na))), guard.ReasonND},
		{"na behind hop-by-hop options", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, 0, frametest.HopByHop(na))), guard.ReasonND},
		{"na in a fragment", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, unix.IPPROTO_FRAGMENT, frametest.Fragment(pICMP6, 0, 0, na))), guard.ReasonND},
		{"na cut short", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, pICMP6, na[:12])), guard.ReasonND},
		{"ns with another's mac", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, solicited, pICMP6, frametest.ND(135, bIP6, frametest.Option(1, other)))), guard.ReasonND},
		{"ns with the mac second", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, solicited, pICMP6, frametest.ND(135, bIP6, frametest.Option(200, a.mac), frametest.Option(1, other)))), guard.ReasonND},
		{"ns behind destination options", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, solicited, unix.IPPROTO_DSTOPTS, frametest.DestinationOptions(pICMP6, frametest.ND(135, bIP6, frametest.Option(1, a.mac))))), guard.ReasonND},
		{"dad for the neighbour", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, bIP6))), guard.ReasonND},
		{"dad with a mac", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, aIP6, frametest.Option(1, other)))), guard.ReasonND},
		{"na without source", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6("::", allNodes, pICMP6, frametest.ND(136, aIP6))), guard.ReasonND},
		{"rs with another's mac", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, "ff02::2", pICMP6, frametest.ICMP(133, make([]byte, 4), frametest.Option(1, other)))), guard.ReasonND},
		{"icmpv6 behind a cut header chain", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(aIP6, allNodes, unix.IPPROTO_FRAGMENT, frametest.Fragment(unix.IPPROTO_DSTOPTS, 0, 1, frametest.DestinationOptions(pICMP6, nil)))), guard.ReasonND},

		{"dhcp server", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, "255.255.255.255", pUDP, frametest.UDP(67, 68))), guard.ReasonDHCP},
		{"dhcpv6 server", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, b.ll, pUDP, frametest.UDP(547, 546))), guard.ReasonDHCP},
		{"dhcpv6 server behind options", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, b.ll, unix.IPPROTO_DSTOPTS, frametest.DestinationOptions(pUDP, frametest.UDP(547, 546)))), guard.ReasonDHCP},

		{"router advertisement", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, pICMP6, frametest.ICMP(134, make([]byte, 12)))), guard.ReasonRouter},
		{"router advertisement behind hop-by-hop", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, 0, frametest.HopByHop(frametest.ICMP(134, make([]byte, 12))))), guard.ReasonRouter},
		{"router advertisement behind destination options", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, unix.IPPROTO_DSTOPTS, frametest.DestinationOptions(pICMP6, frametest.ICMP(134, make([]byte, 12))))), guard.ReasonRouter},
		{"router advertisement in a fragment", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, unix.IPPROTO_FRAGMENT, frametest.Fragment(pICMP6, 0, 0, frametest.ICMP(134, make([]byte, 12))))), guard.ReasonRouter},
		{"router advertisement over ipv4", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, "224.0.0.1", pICMP, frametest.ICMP(9, make([]byte, 12)))), guard.ReasonRouter},
		{"mld query", frametest.Ether(a.mac, frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, 0, frametest.HopByHop(frametest.ICMP(130, make([]byte, 20))))), guard.ReasonRouter},
		{"igmp query", frametest.Ether(a.mac, frametest.Broadcast, pIP4, frametest.IP4(aIP4, "224.0.0.1", unix.IPPROTO_IGMP, frametest.ICMP(0x11, make([]byte, 4)))), guard.ReasonRouter},

		{"redirect", frametest.Ether(a.mac, b.mac, pIP4, frametest.IP4(aIP4, bIP4, pICMP, frametest.ICMP(5, make([]byte, 28)))), guard.ReasonRedirect},
		{"redirect over ipv6", frametest.Ether(a.mac, b.mac, pIP6, frametest.IP6(a.ll, b.ll, pICMP6, frametest.ICMP(137, make([]byte, 36)))), guard.ReasonRedirect},

		{"vlan tag", frametest.Ether(a.mac, frametest.Broadcast, 0x8100, frametest.BE16(7), frametest.BE16(pIP4), frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonEtherType},
		{"priority tag", frametest.Ether(a.mac, frametest.Broadcast, 0x8100, frametest.BE16(0), frametest.BE16(pIP4), frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonEtherType},
		{"provider tag", frametest.Ether(a.mac, frametest.Broadcast, 0x88a8, frametest.BE16(7), frametest.BE16(pIP6), frametest.IP6(aIP6, bIP6, pUDP, frametest.UDP(1, 2))), guard.ReasonEtherType},
		{"two tags", frametest.Ether(a.mac, frametest.Broadcast, 0x8100, frametest.BE16(7), frametest.BE16(0x8100), frametest.BE16(8), frametest.BE16(pIP4), frametest.IP4(aIP4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonEtherType},
		{"unknown type", frametest.Ether(a.mac, frametest.Broadcast, 0x88b5, make([]byte, 46)), guard.ReasonEtherType},
		{"lldp", frametest.Ether(a.mac, frametest.Broadcast, 0x88cc, make([]byte, 46)), guard.ReasonEtherType},
		{"length instead of a type", frametest.Ether(a.mac, frametest.Broadcast, 46, make([]byte, 46)), guard.ReasonEtherType},
		{"rarp", frametest.Ether(a.mac, frametest.Broadcast, unix.ETH_P_RARP, frametest.ARP(3, a.mac, aIP4, aIP4)), guard.ReasonEtherType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := s.g.Counters(t.Context())
			require.NoError(t, err)
			neighbour, host := s.passes(t, tt.frame)
			assert.False(t, neighbour, "the neighbour got it")
			assert.False(t, host, "the host got it")
			after, err := s.g.Counters(t.Context())
			require.NoError(t, err)
			for reason := range after {
				want := uint64(0)
				if reason == tt.reason {
					want = 1
				}
				assert.Equal(t, want, after[reason].Packets-before[reason].Packets, "packets dropped by %s", reason)
			}
		})
	}
}
