package integration

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
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

// Networks without addresses have a DHCP server, at .254, which leases but one address.
const (
	dhcpPrefix = "10.234.0."
	dhcpServer = dhcpPrefix + "254"
	dhcpLease  = dhcpPrefix + "77"
	byHand     = dhcpPrefix + "7"
)

// TestIntegrationUnaddressed has a pod lease an address by DHCP, on a bridge and on an
// uplink, and another take one by itself. They still have but one MAC, and serve no DHCP.
func TestIntegrationUnaddressed(t *testing.T) {
	ctx, lab := openLab(t)
	prog, err := lab.GoBuild(ctx, "./integration/internal/rawframe")
	require.NoError(t, err)
	image := vmlab.Image{Files: map[string]string{rawframePath: prog}, Modules: []string{"af_packet"}}
	t.Run("bridge", func(t *testing.T) {
		ctx, s, vm := newPods(t, site.Options{Image: image}, "web", "db")
		run(ctx, t, s, "network", "create", "open", "--no-addresses")
		assertUnaddressed(ctx, t, s, vm, s.Net, "bf-open", func(attachment) string { return bridgeTable })
	})
	t.Run("macvtap", func(t *testing.T) {
		ctx, s, vm, out := newLAN(t, site.Options{Image: image}, "web", "db")
		run(ctx, t, s, "network", "create", "open", "--type", "macvtap", "--uplink", "wan", "--no-addresses")
		assertUnaddressed(ctx, t, s, vm, out, "lan", func(a attachment) string { return "netdev " + a.Tap })
	})
}

// assertUnaddressed has pods web and db on network open, and a DHCP server on a link of a
// namespace. table names the anti-spoofing table of an attachment.
func assertUnaddressed(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, server *vmlab.NetNS, link string, table func(attachment) string) {
	t.Helper()
	web := attach(ctx, t, s, "--pod", "web", "--network", "open")
	db := attach(ctx, t, s, "--pod", "db", "--network", "open")
	assert.Empty(t, append(web.Addresses, db.Addresses...))
	assert.NotContains(t, inGuest(ctx, t, vm, "web", "ip", "-4", "addr", "show", "eth0"), "inet ")
	settled(ctx, t, s, vm)

	outside(ctx, t, server, "ip", "addr", "add", dhcpServer+"/24", "dev", link)
	serveDHCP(t, server, link)
	const script = `#!/bin/sh
if [ "$1" = bound ]; then ip addr add "$ip/24" dev "$interface"; fi
`
	require.NoError(t, vm.Put(ctx, "/tmp/dhcp", []byte(script), 0o755))
	inGuest(ctx, t, vm, "web", "busybox", "udhcpc", "-f", "-q", "-n", "-t", "20", "-i", "eth0", "-s", "/tmp/dhcp")
	assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "addr", "show", "eth0"), "inet "+dhcpLease+"/24")
	inGuest(ctx, t, vm, "db", "ip", "addr", "add", byHand+"/24", "dev", "eth0")
	for _, to := range []string{dhcpLease, byHand} {
		outside(ctx, t, server, "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1472", to)
	}
	inGuest(ctx, t, vm, "web", "busybox", "ping", "-c", "1", "-W", "5", byHand)
	me, err := vnic.ParseMAC(web.MAC)
	require.NoError(t, err)
	theirs, err := vnic.ParseMAC(db.MAC)
	require.NoError(t, err)
	for pod, addr := range map[string]string{"web": "fd00:234::77", "db": "fd00:234::7"} {
		inGuest(ctx, t, vm, pod, "ip", "addr", "add", addr+"/64", "dev", "eth0", "nodad")
	}
	inGuest(ctx, t, vm, "web", "busybox", "ping6", "-c", "1", "-W", "5", "-s", "1452", "fd00:234::7")

	for _, f := range []forgery{
		{"mac", "mac", frametest.Ether(theirs, frametest.Broadcast, unix.ETH_P_IP, frametest.IP4(byHand, dhcpServer, unix.IPPROTO_UDP, frametest.UDP(1, 2)))},
		{"ARP", "arp", frametest.Ether(me, frametest.Broadcast, unix.ETH_P_ARP, frametest.ARP(2, theirs, byHand, dhcpServer))},
		{"DHCP server", "dhcp", frametest.Ether(me, frametest.Broadcast, unix.ETH_P_IP, frametest.IP4(dhcpLease, "255.255.255.255", unix.IPPROTO_UDP, frametest.UDP(67, 68)))},
	} {
		before := counter(ctx, t, s, table(web), f.reason)
		inGuest(ctx, t, vm, "web", rawframePath, "send", "eth0", hex.EncodeToString(f.frame))
		require.NoError(t, site.Until(ctx, "the drop of a forged "+f.name, func(ctx context.Context) (bool, error) {
			return counter(ctx, t, s, table(web), f.reason) > before, nil
		}))
	}
	run(ctx, t, s, "detach", "--pod", "web")
	run(ctx, t, s, "detach", "--pod", "db")
	assertNothingLeft(ctx, t, s, vm)
	run(ctx, t, s, "network", "rm", "open")
}

// serveDHCP leases an address on a link of a namespace, while the test lasts.
func serveDHCP(t *testing.T, ns *vmlab.NetNS, link string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	lines := []string{
		"start " + dhcpLease, "end " + dhcpLease, "interface " + link, "option subnet 255.255.255.0",
		"pidfile " + filepath.Join(dir, "pid"), "lease_file " + filepath.Join(dir, "leases"), "",
	}
	require.NoError(t, os.WriteFile(conf, []byte(strings.Join(lines, "\n")), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := ns.Command("busybox", "udhcpd", "-f", conf)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := vmlab.StartProcess(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		raw, err := os.ReadFile(log.Name())
		if t.Failed() {
			t.Logf("udhcpd (%v):\n%s", err, raw)
		}
		assert.NoError(t, log.Close())
	})
}
