package integration

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// nativeArgs give a guest a slot of native hotplug, and no ACPI hotplug.
var nativeArgs = []string{
	"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
	"-device", "pcie-root-port,id=native,bus=pcie.0,chassis=77,slot=77",
}

// TestIntegrationNativePowerOff unplugs from a slot of PCIe's native hotplug, once as
// QEMU does, which takes the guest five seconds, and once with the guest half's
// release before.
func TestIntegrationNativePowerOff(t *testing.T) {
	ctx, vm := bootWithNICTool(t, 1, nativeArgs...)
	inGuest(ctx, t, vm, "", "mkfifo", "/tmp/release")
	bare := nativeDetach(ctx, t, vm, false)
	ours := nativeDetach(ctx, t, vm, true)
	t.Logf("unplug by native hotplug: bare %s, with the slot powered off by the guest %s: ratio %.3f",
		bare, ours, float64(ours)/float64(bare))
	assert.Less(t, ours, bare/3)
}

// nativeDetach plugs a NIC into the native slot, has it given to the pod, and returns
// how long it takes to unplug.
func nativeDetach(ctx context.Context, t *testing.T, vm *vmlab.VM, release bool) time.Duration {
	t.Helper()
	type args map[string]any
	mon := vm.Monitor()
	do := func(cmd string, a args) {
		t.Helper()
		_, err := mon.Do(ctx, cmd, a)
		require.NoError(t, err)
	}
	p, err := vm.Start(ctx, vmlab.Command{Argv: []string{nicTool, "release", nicMAC, "web", "/tmp/release"}})
	require.NoError(t, err)
	do("netdev_add", args{"type": "user", "id": "n0", "restrict": true, "ipv6": false})
	do("device_add", args{
		"driver": "virtio-net-pci", "id": "d0", "netdev": "n0", "mac": nicMAC, "bus": "native", "addr": "0",
		"romfile": "", "vectors": 4,
	})
	require.NoError(t, site.Until(ctx, "the vnic in its pod", func(ctx context.Context) (bool, error) {
		res, err := vm.RunIn(ctx, "web", "test", "-e", "/proc/sys/net/ipv4/conf/eth0")
		return res.Code == 0, err
	}))
	mark := mon.Mark()
	start := time.Now()
	if release {
		inGuest(ctx, t, vm, "", "sh", "-c", "echo > /tmp/release")
	}
	if _, err := mon.Do(ctx, "device_del", args{"id": "d0"}); err != nil {
		require.ErrorContains(t, err, "not found", "the guest was faster")
	}
	require.NoError(t, mon.AwaitDeleted(ctx, mark, "d0"))
	took := time.Since(start)
	do("netdev_del", args{"id": "n0"})
	if !release {
		inGuest(ctx, t, vm, "", "sh", "-c", "echo > /tmp/release")
	}
	code, err := p.Wait(ctx)
	require.NoError(t, err)
	log, err := vm.Get(ctx, "/run/log/nictool.log")
	require.NoError(t, err)
	assert.Zero(t, code, "%s", log)
	return took
}

// TestIntegrationNativeDetach does so by brfuse as a whole: the device goes in the
// middle of its unplug, without having been asked to.
func TestIntegrationNativeDetach(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", ExtraArgs: nativeArgs})
	require.NoError(t, err)
	_, err = vm.AddPod(ctx, "web")
	require.NoError(t, err)
	require.NoError(t, s.AddVM(ctx, vm))
	for range 3 { // the slot can be used again at once
		a := attach(ctx, t, s, "--pod", "web")
		require.Equal(t, "native/00", a.Slot)
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
		start := time.Now()
		run(ctx, t, s, "detach", "--pod", "web")
		t.Logf("detach took %s", time.Since(start))
		assert.Less(t, time.Since(start), 4*time.Second)
		assertNothingLeft(ctx, t, s, vm)
	}
}
