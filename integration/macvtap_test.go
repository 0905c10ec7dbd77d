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
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/vnic"
)

// Network lan is of macvtaps. Its router is at the far end of the hypervisor's uplink,
// and there is more of the world behind it.
const (
	lanPrefix4 = "10.233.0."
	lanPrefix6 = "fd00:233::"
	lanRouter4 = lanPrefix4 + "254"
	lanRouter6 = lanPrefix6 + "fe"
	beyond4    = "192.0.2.1"
	beyond6    = "2001:db8::1"
)

// newOutside gives a site the uplink wan, and returns what is at its far end, the link lan.
func newOutside(ctx context.Context, t *testing.T, s *site.Site) *vmlab.NetNS {
	t.Helper()
	out, err := vmlab.NewNetNS(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, out.Close()) })
	onHost(ctx, t, s, "ip", "link", "add", "wan", "up", "type", "veth", "peer", "name", "lan", "netns", out.Path())
	outside(ctx, t, out, "ip", "link", "set", "lan", "up")
	return out
}

// outside runs a command at the far end of the uplink, which has to succeed.
func outside(ctx context.Context, t *testing.T, out *vmlab.NetNS, argv ...string) {
	t.Helper()
	res, err := out.Run(ctx, argv...)
	require.NoError(t, err)
	require.NoError(t, res.Err(), strings.Join(argv, " "))
}

// newLAN returns what newPods does, with network lan and its router.
func newLAN(t *testing.T, o site.Options, pods ...string) (context.Context, *site.Site, *vmlab.VM, *vmlab.NetNS) {
	t.Helper()
	ctx, s, vm := newPods(t, o, pods...)
	out := newOutside(ctx, t, s)
	outside(ctx, t, out, "ip", "addr", "add", lanRouter4+"/24", "dev", "lan")
	outside(ctx, t, out, "ip", "addr", "add", lanRouter6+"/64", "dev", "lan", "nodad")
	outside(ctx, t, out, "ip", "addr", "add", beyond4+"/32", "dev", "lo")
	outside(ctx, t, out, "ip", "addr", "add", beyond6+"/128", "dev", "lo")
	run(ctx, t, s, "network", "create", "lan", "--type", "macvtap", "--uplink", "wan",
		"--subnet", lanPrefix4+"0/24", "--gateway", lanRouter4, "--subnet", lanPrefix6+"/64", "--gateway", lanRouter6)
	if vm.Ref().Libvirt != "" {
		fails(ctx, t, s, "unsupported", "network lan is of kind macvtap, where a vm of libvirt can't have a vnic", "attach", "--vm", "vm1", "--pod", pods[0], "--network", "lan")
		assertNothingLeft(ctx, t, s, vm)
		t.Skip("domains of libvirt have no macvtaps")
	}
	return ctx, s, vm, out
}

// TestIntegrationMacvtap shows that pods on an uplink reach what is there and beyond, and
// each other, with no bridge of the host's, and that nothing is left of them.
func TestIntegrationMacvtap(t *testing.T) {
	ctx, s, vm, out := newLAN(t, site.Options{Race: true}, "web", "db")
	web := attach(ctx, t, s, "--pod", "web", "--network", "lan")
	db := attach(ctx, t, s, "--pod", "db", "--network", "lan", "--queues", "2")

	assertNothingNested(ctx, t, vm)
	assert.Empty(t, onHost(ctx, t, s, "ip", "link", "show", "master", "bf-blue"))
	for _, a := range []attachment{web, db} {
		assert.Contains(t, onHost(ctx, t, s, "ip", "-d", "link", "show", a.Tap), "macvtap mode bridge")
	}
	assertOutside(ctx, t, vm, web, db, out)
	settled(ctx, t, s, vm)
	t.Run("path", func(t *testing.T) {
		var r netpath.Report
		require.NoError(t, s.BrfuseJSON(ctx, &r, "doctor", "--path", "web", "--watch", "0"))
		require.NotNil(t, r.Host, "%v", r.Notes)
		assert.Equal(t, []string{"macvtap " + web.Tap, "veth wan"}, hops(r.Host)[:2], "%v", hops(r.Host))
	})
	t.Run("restart", func(t *testing.T) {
		s.KillDaemon()
		outside(ctx, t, out, "ping", "-c", "1", "-W", "5", web.Addr(false))
		require.NoError(t, s.StartDaemon(ctx))
		require.NoError(t, s.AwaitAgent(ctx, "vm1"))
		settled(ctx, t, s, vm)
		outside(ctx, t, out, "ping", "-c", "1", "-W", "5", db.Addr(true))
	})
	t.Run("again", func(t *testing.T) {
		run(ctx, t, s, "detach", "--pod", "web")
		run(ctx, t, s, "detach", "--pod", "db")
		assertNothingLeft(ctx, t, s, vm)
		web := attach(ctx, t, s, "--pod", "web", "--network", "lan")
		db := attach(ctx, t, s, "--pod", "db", "--network", "lan")
		assertOutside(ctx, t, vm, web, db, out)
	})
	t.Run("QEMU killed", func(t *testing.T) { // macvtaps outlive it, other than taps
		vm.Kill()
		assert.Empty(t, settled(ctx, t, s, vm).Store)
	})
	run(ctx, t, s, "network", "rm", "lan")
	run(ctx, t, s, "network", "rm", "blue")
	assertNothingLeft(ctx, t, s, vm)
	assert.Empty(t, onHost(ctx, t, s, "nft", "list", "tables"))
	assert.Equal(t, 2, strings.Count(onHost(ctx, t, s, "ip", "-o", "link"), "\n"), "lo and wan alone")
}

// assertOutside exchanges pings, also such of the full MTU, and pages, over IPv4 and
// IPv6, between pods and the router, and what is beyond it.
func assertOutside(ctx context.Context, t *testing.T, vm *vmlab.VM, web, db attachment, out *vmlab.NetNS) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		router, beyond, ping, full := lanRouter4, beyond4, "ping", "1472"
		if v6 {
			router, beyond, ping, full = lanRouter6, beyond6, "ping6", "1452"
		}
		for _, a := range []attachment{web, db} {
			outside(ctx, t, out, "ping", "-c", "1", "-W", "5", a.Addr(v6))
			outside(ctx, t, out, "ping", "-c", "1", "-W", "5", "-M", "do", "-s", full, a.Addr(v6))
		}
		for _, to := range []string{router, beyond, db.Addr(v6)} {
			inGuest(ctx, t, vm, "web", "busybox", ping, "-c", "1", "-W", "5", "-s", full, to)
		}
		inGuest(ctx, t, vm, "db", "busybox", ping, "-c", "1", "-W", "5", web.Addr(v6))
		assertTCP(ctx, t, vm, web, out, router)
	}
}

// TestIntegrationMacvtapPool: an attach takes a parked macvtap, and a detach gives it back.
func TestIntegrationMacvtapPool(t *testing.T) {
	ctx, s, vm, out := newLAN(t, site.Options{}, "web", "db")
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "lan", "--low", "1", "--high", "2")
	awaitParked(ctx, t, s, 1)
	assert.NotContains(t, onHost(ctx, t, s, "ip", "link", "show", "type", "macvtap"), ",UP", "a parked one hears nothing")
	for _, pod := range []string{"web", "db"} {
		a := attach(ctx, t, s, "--pod", pod, "--network", "lan")
		assert.NotEqual(t, "brf"+a.ID, a.Tap, "the attach was not made from the pool")
		outside(ctx, t, out, "ping", "-c", "1", "-W", "5", a.Addr(false))
		outside(ctx, t, out, "ping", "-c", "1", "-W", "5", a.Addr(true))
		run(ctx, t, s, "detach", "--pod", pod)
		awaitParked(ctx, t, s, 2)
		settled(ctx, t, s, vm)
	}
	run(ctx, t, s, "pool", "rm", "--vm", "vm1", "--network", "lan")
	assert.Empty(t, settled(ctx, t, s, vm).Devices)
	assertNothingLeft(ctx, t, s, vm)
}

// TestIntegrationMacvtapSpoof has root in a pod send what is not the pod's: neither its
// neighbour nor the outside sees it.
func TestIntegrationMacvtapSpoof(t *testing.T) {
	ctx, lab := openLab(t)
	prog, err := lab.GoBuild(ctx, "./integration/internal/rawframe")
	require.NoError(t, err)
	ctx, s, vm, out := newLAN(t, site.Options{Image: vmlab.Image{Files: map[string]string{rawframePath: prog}, Modules: []string{"af_packet"}}}, "evil", "good")
	evil, good := attach(ctx, t, s, "--pod", "evil", "--network", "lan"), attach(ctx, t, s, "--pod", "good", "--network", "lan")
	me, err := vnic.ParseMAC(evil.MAC)
	require.NoError(t, err)
	table := "netdev " + evil.Tap

	_, err = vm.Start(ctx, vmlab.Command{Argv: []string{rawframePath, "recv", "eth0"}, Netns: "good"})
	require.NoError(t, err)
	awaitHeard(ctx, t, vm, "ready")
	overheard := listenOutside(ctx, t, out, prog)
	forged := forgeries(me, evil, good, lanRouter4, lanRouter6)
	for i, f := range forged {
		if i == len(forged)/2 {
			s.KillDaemon() // the next one finds the rules, and what they have counted
			require.NoError(t, s.StartDaemon(ctx))
			require.NoError(t, s.AwaitAgent(ctx, "vm1"))
			settled(ctx, t, s, vm)
		}
		before := counter(ctx, t, s, table, f.reason)
		inGuest(ctx, t, vm, "evil", rawframePath, "send", "eth0", hex.EncodeToString(f.frame))
		require.NoError(t, site.Until(ctx, "the drop of a forged "+f.name, func(ctx context.Context) (bool, error) {
			return counter(ctx, t, s, table, f.reason) > before, nil
		}))
	}
	honest := hex.EncodeToString(frametest.Ether(me, frametest.Broadcast, unix.ETH_P_IP,
		frametest.IP4(evil.Addr(false), good.Addr(false), unix.IPPROTO_UDP, frametest.UDP(4000, 4999))))
	inGuest(ctx, t, vm, "evil", rawframePath, "send", "eth0", honest)
	heard, without := awaitHeard(ctx, t, vm, honest), overheard(honest)
	for _, f := range forged {
		assert.NotContains(t, heard, hex.EncodeToString(f.frame), "the neighbour got a forged %s", f.name)
		assert.NotContains(t, without, hex.EncodeToString(f.frame), "the outside got a forged %s", f.name)
	}
	outside(ctx, t, out, "ping", "-c", "1", "-W", "5", evil.Addr(false))
}

// listenOutside listens at the far end of the uplink. The returned function waits for a
// frame, and returns all that came.
func listenOutside(ctx context.Context, t *testing.T, out *vmlab.NetNS, rawframe string) func(frame string) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "heard"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, file.Close()) })
	cmd := out.Command(rawframe, "recv", "lan")
	cmd.Stdout, cmd.Stderr = file, os.Stderr
	p, err := vmlab.StartProcess(cmd)
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	await := func(want string) (heard string) {
		require.NoError(t, site.Until(ctx, "the outside to hear "+want, func(context.Context) (bool, error) {
			raw, err := os.ReadFile(file.Name())
			heard = string(raw)
			return strings.Contains(heard, want), err
		}))
		return heard
	}
	await("ready")
	return await
}
