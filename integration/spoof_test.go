package integration

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

// rawframePath is where guests have the program that sends forged frames.
const rawframePath = "/sbin/rawframe"

// TestIntegrationSpoof has root in a pod send what is not the pod's. The tap's
// rules drop and count it, and the neighbour never sees it.
func TestIntegrationSpoof(t *testing.T) {
	ctx, lab := openLab(t)
	prog, err := lab.GoBuild(ctx, "./integration/internal/rawframe")
	require.NoError(t, err)
	ctx, s, vm := newPods(t, site.Options{Image: vmlab.Image{Files: map[string]string{rawframePath: prog}, Modules: []string{"af_packet"}}}, "evil", "good")
	evil, good := attach(ctx, t, s, "--pod", "evil"), attach(ctx, t, s, "--pod", "good")
	me, err := vnic.ParseMAC(evil.MAC)
	require.NoError(t, err)
	forged := forgeries(me, evil, good, bluePrefix4+"1", bluePrefix6+"1")
	honest := frametest.Ether(me, frametest.Broadcast, unix.ETH_P_IP, frametest.IP4(evil.Addr(false), good.Addr(false), unix.IPPROTO_UDP, frametest.UDP(4000, 4999)))

	listener, err := vm.Start(ctx, vmlab.Command{Argv: []string{rawframePath, "recv", "eth0"}, Netns: "good"})
	require.NoError(t, err)
	awaitHeard(ctx, t, vm, "ready")
	for _, f := range forged {
		before := counter(ctx, t, s, bridgeTable, f.reason)
		inGuest(ctx, t, vm, "evil", rawframePath, "send", "eth0", hex.EncodeToString(f.frame), hex.EncodeToString(f.frame))
		require.NoError(t, site.Until(ctx, "the drop of a forged "+f.name, func(ctx context.Context) (bool, error) {
			return counter(ctx, t, s, bridgeTable, f.reason) >= before+2, nil
		}))
	}
	inGuest(ctx, t, vm, "evil", rawframePath, "send", "eth0", hex.EncodeToString(honest))
	heard := awaitHeard(ctx, t, vm, hex.EncodeToString(honest))
	for _, f := range forged {
		assert.NotContains(t, heard, hex.EncodeToString(f.frame), "the neighbour got a forged %s", f.name)
	}
	require.NoError(t, listener.Kill(ctx))
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", evil.Addr(false))
}

// forgery is a frame that a pod may not send, and the counter that tells of it.
type forgery struct {
	name, reason string
	frame        []byte
}

// forgeries are what pod evil may not send to good, on a network with those gateways.
func forgeries(me vnic.MAC, evil, good attachment, gateway4, gateway6 string) []forgery {
	other := vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0xee}
	all := frametest.Broadcast
	ip4, ip6, local := evil.Addr(false), evil.Addr(true), me.LinkLocal().String()
	udp := frametest.UDP(4000, 4001)
	return []forgery{
		{"mac", "mac", frametest.Ether(other, all, unix.ETH_P_IP, frametest.IP4(ip4, good.Addr(false), unix.IPPROTO_UDP, udp))},
		{"source IPv4", "ipv4", frametest.Ether(me, all, unix.ETH_P_IP, frametest.IP4(gateway4, good.Addr(false), unix.IPPROTO_UDP, udp))},
		{"source IPv6", "ipv6", frametest.Ether(me, all, unix.ETH_P_IPV6, frametest.IP6(gateway6, good.Addr(true), unix.IPPROTO_UDP, udp))},
		{"ARP", "arp", frametest.Ether(me, all, unix.ETH_P_ARP, frametest.ARP(2, me, gateway4, good.Addr(false)))},
		{"ND", "nd", frametest.Ether(me, all, unix.ETH_P_IPV6, frametest.IP6(ip6, "ff02::1", unix.IPPROTO_ICMPV6, frametest.ND(136, gateway6, frametest.Option(2, me))))},
		{"DHCP server", "dhcp", frametest.Ether(me, all, unix.ETH_P_IP, frametest.IP4(ip4, "255.255.255.255", unix.IPPROTO_UDP, frametest.UDP(67, 68)))},
		{"DHCPv6 server", "dhcp", frametest.Ether(me, all, unix.ETH_P_IPV6, frametest.IP6(local, "ff02::1", unix.IPPROTO_UDP, frametest.UDP(547, 546)))},
		{"RA", "router", frametest.Ether(me, all, unix.ETH_P_IPV6, frametest.IP6(local, "ff02::1", unix.IPPROTO_ICMPV6, frametest.ICMP(134, make([]byte, 12))))},
	}
}

// awaitHeard waits until the listener has printed something, and returns all
// that it printed.
func awaitHeard(ctx context.Context, t *testing.T, vm *vmlab.VM, want string) string {
	t.Helper()
	var heard string
	require.NoError(t, site.Until(ctx, "the listener to print "+want, func(ctx context.Context) (bool, error) {
		raw, err := vm.Get(ctx, "/run/log/rawframe.log")
		heard = string(raw)
		return strings.Contains(heard, want), err
	}))
	return heard
}

// bridgeTable is the anti-spoofing table of taps in bridges.
const bridgeTable = "bridge brfuse"

// counter reads one of an anti-spoofing table's counters as an operator would.
func counter(ctx context.Context, t *testing.T, s *site.Site, table, name string) int {
	t.Helper()
	var list struct {
		NFTables []struct {
			Counter struct {
				Name    string `json:"name"`
				Packets int    `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	out := onHost(ctx, t, s, "nft", "-j", "list counters table "+table)
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	for _, e := range list.NFTables {
		if e.Counter.Name == name {
			return e.Counter.Packets
		}
	}
	require.Fail(t, "no counter", "%s in %s", name, out)
	return 0
}
