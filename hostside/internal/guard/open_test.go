package guard_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationOpenPorts(t *testing.T) { onEither(t, openPorts) }

// openPorts has a pod that may have any address send to one that may, too.
func openPorts(t *testing.T, s *segment) {
	t.Helper()
	for _, p := range []pod{s.a, s.b} {
		port := s.g.Port(p.id.TapName())
		port.Addresses, port.Open = nil, true
		require.NoError(t, s.g.SetPort(t.Context(), port))
	}
	a, b := s.a, s.b
	other := vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0xee}
	const any4, any6 = "192.0.2.77", "2001:db8::77"
	ether := func(to vnic.MAC, kind int, payload ...[]byte) []byte {
		return frametest.Ether(a.mac, to, kind, payload...)
	}
	for _, tt := range []struct {
		name   string
		frame  []byte
		reason guard.Reason // none: it passes
	}{
		{"arp request", ether(frametest.Broadcast, pARP, frametest.ARP(1, a.mac, any4, bIP4)), ""},
		{"arp reply", ether(b.mac, pARP, frametest.ARP(2, a.mac, any4, bIP4)), ""},
		{"arp probe", ether(frametest.Broadcast, pARP, frametest.ARP(1, a.mac, "0.0.0.0", any4)), ""},
		{"dhcp client", ether(frametest.Broadcast, pIP4, frametest.IP4("0.0.0.0", "255.255.255.255", pUDP, frametest.UDP(68, 67))), ""},
		{"dhcpv6 client", ether(vnic.MAC{0x33, 0x33, 0, 1, 0, 2}, pIP6, frametest.IP6(a.ll, "ff02::1:2", pUDP, frametest.UDP(546, 547))), ""},
		{"ipv4", ether(b.mac, pIP4, frametest.IP4(any4, "198.51.100.1", pUDP, frametest.UDP(1, 2))), ""},
		{"ipv6", ether(b.mac, pIP6, frametest.IP6(any6, "2001:db8:1::1", pTCP, frametest.TCP(1, 2))), ""},
		{"neighbour solicitation", ether(frametest.Broadcast, pIP6, frametest.IP6(any6, solicited, pICMP6, frametest.ND(135, bIP6, frametest.Option(1, a.mac)))), ""},
		{"neighbour advertisement", ether(b.mac, pIP6, frametest.IP6(any6, bIP6, pICMP6, frametest.ND(136, any6, frametest.Option(2, a.mac)))), ""},
		{"neighbour advertisement, link-local source", ether(b.mac, pIP6, frametest.IP6(a.ll, bIP6, pICMP6, frametest.ND(136, any6, frametest.Option(2, a.mac)))), ""},
		{"duplicate address detection", ether(frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, any6))), ""},
		{"duplicate address detection with nonce", ether(frametest.Broadcast, pIP6, frametest.IP6("::", solicited, pICMP6, frametest.ND(135, any6, []byte{14, 1, 1, 2, 3, 4, 5, 6}))), ""},
		{"router solicitation", ether(frametest.Broadcast, pIP6, frametest.IP6(a.ll, "ff02::2", pICMP6, frametest.ICMP(133, make([]byte, 4), frametest.Option(1, a.mac)))), ""},
		{"mld report", ether(frametest.Broadcast, pIP6, frametest.IP6("::", "ff02::16", 0, frametest.HopByHop(frametest.ICMP(143, make([]byte, 4))))), ""},

		{"mac of nobody", frametest.Ether(other, frametest.Broadcast, pIP4, frametest.IP4(any4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"mac of the neighbour", frametest.Ether(b.mac, frametest.Broadcast, pIP4, frametest.IP4(any4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonMAC},
		{"arp of another's mac", ether(frametest.Broadcast, pARP, frametest.ARP(2, b.mac, any4, bIP4)), guard.ReasonARP},
		{"arp of another protocol", ether(frametest.Broadcast, pARP, append([]byte{0, 1, 0x86, 0xdd, 6, 4}, frametest.ARP(1, a.mac, any4, bIP4)[6:]...)), guard.ReasonARP},
		{"advertisement of another's mac", ether(b.mac, pIP6, frametest.IP6(any6, bIP6, pICMP6, frametest.ND(136, any6, frametest.Option(2, b.mac)))), guard.ReasonND},
		{"solicitation of another's mac", ether(b.mac, pIP6, frametest.IP6(any6, solicited, pICMP6, frametest.ND(135, bIP6, frametest.Option(1, b.mac)))), guard.ReasonND},
		{"nonce from an address", ether(b.mac, pIP6, frametest.IP6(any6, solicited, pICMP6, frametest.ND(135, bIP6, []byte{14, 1, 1, 2, 3, 4, 5, 6}))), guard.ReasonND},
		{"dhcp server", ether(frametest.Broadcast, pIP4, frametest.IP4(any4, "255.255.255.255", pUDP, frametest.UDP(67, 68))), guard.ReasonDHCP},
		{"dhcpv6 server", ether(b.mac, pIP6, frametest.IP6(a.ll, b.ll, pUDP, frametest.UDP(547, 546))), guard.ReasonDHCP},
		{"router advertisement", ether(frametest.Broadcast, pIP6, frametest.IP6(a.ll, allNodes, pICMP6, frametest.ICMP(134, make([]byte, 12)))), guard.ReasonRouter},
		{"redirect", ether(b.mac, pIP4, frametest.IP4(any4, bIP4, pICMP, frametest.ICMP(5, make([]byte, 28)))), guard.ReasonRedirect},
		{"vlan tag", ether(frametest.Broadcast, 0x8100, frametest.BE16(7), frametest.BE16(pIP4), frametest.IP4(any4, bIP4, pUDP, frametest.UDP(1, 2))), guard.ReasonEtherType},
		{"lldp", ether(frametest.Broadcast, unix.ETH_P_LLDP, make([]byte, 46)), guard.ReasonEtherType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := s.g.Counters(t.Context())
			require.NoError(t, err)
			neighbour, _ := s.passes(t, tt.frame)
			assert.Equal(t, tt.reason == "", neighbour)
			after, err := s.g.Counters(t.Context())
			require.NoError(t, err)
			for reason := range after {
				want := before[reason].Packets
				if reason == tt.reason {
					want++
				}
				assert.Equal(t, want, after[reason].Packets, "packets dropped by %s", reason)
			}
		})
	}

	// What is open stays so for the next process, and ends with a lease.
	require.NoError(t, s.g.Close())
	s.ns.In(func() (err error) {
		s.g, err = guard.Open(discard())
		return err
	})
	port := s.g.Port(a.id.TapName())
	assert.True(t, port.Open)
	forged := ether(b.mac, pIP4, frametest.IP4(any4, bIP4, pUDP, frametest.UDP(1, 2)))
	neighbour, _ := s.passes(t, forged)
	assert.True(t, neighbour)
	port.Open, port.Addresses = false, []netip.Addr{netip.MustParseAddr(aIP4)}
	require.NoError(t, s.g.SetPort(t.Context(), port))
	neighbour, _ = s.passes(t, forged)
	assert.False(t, neighbour)
}
