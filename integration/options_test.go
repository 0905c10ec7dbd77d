package integration

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationOptions asks for what differs from the defaults: queues, MTU,
// addresses, MAC, a namespace by process id and by path.
func TestIntegrationOptions(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	run(ctx, t, s, "network", "create", "blue", "--subnet", "10.231.0.0/24", "--subnet", "fd00:231::/64", "--mtu", "9000")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", VNICs: 31, CPUs: 2})
	require.NoError(t, err)
	pid, err := vm.AddPod(ctx, "web")
	require.NoError(t, err)
	require.NoError(t, s.AddVM(ctx, vm))

	a := attach(ctx, t, s, "--pod", "by-pid", "--netns", strconv.Itoa(pid), "--queues", "2", "--mtu", "4000",
		"--ip", "10.231.0.77", "--ip", "fd00:231::77", "--mac", "02:00:5e:00:53:77")
	assert.Equal(t, []string{"10.231.0.77/24", "fd00:231::77/64"}, a.Addresses)
	assert.Equal(t, "02:00:5e:00:53:77", a.MAC)
	link := inGuest(ctx, t, vm, "web", "ip", "-d", "link", "show", "eth0")
	assert.Contains(t, link, "mtu 4000")
	assert.Contains(t, link, "02:00:5e:00:53:77")
	assert.Contains(t, link, "numtxqueues 2")
	tap := onHost(ctx, t, s, "ip", "-d", "link", "show", a.Tap)
	assert.Contains(t, tap, "multi_queue numqueues 2 numdisabled 0", "the guest uses both queues")
	assert.Contains(t, tap, "mtu 4000")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", "-s", "3900", "-M", "do", a.Addr(false))

	b := attach(ctx, t, s, "--pod", "by-path", "--netns", "/run/netns/web", "--ifname", "net9", "--no-default-route")
	assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "addr", "show", "net9"), b.Addr(false))
	run(ctx, t, s, "detach", "--pod", "by-pid")
	run(ctx, t, s, "detach", "--pod", "by-path")
	assertNothingLeft(ctx, t, s, vm)
}

// TestIntegrationEject has the guest eject a pod's NIC, and the operator another
// one: both are released.
func TestIntegrationEject(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "web", "db")
	a := attach(ctx, t, s, "--pod", "web")
	b := attach(ctx, t, s, "--pod", "db")
	inGuest(ctx, t, vm, "", "sh", "-c", ejectScript(a.GuestPCI))
	_, err := vm.Monitor().Do(ctx, "device_del", map[string]any{"id": deviceID(vm, b.ID)})
	require.NoError(t, err)
	awaitGone(ctx, t, s, a.ID)
	awaitGone(ctx, t, s, b.ID)
	require.NoError(t, site.Until(ctx, "nothing to be left", func(ctx context.Context) (bool, error) {
		tr, err := s.LookAround(ctx, vm)
		return tr.Agree() && len(tr.Store) == 0, err
	}))
	assertNothingLeft(ctx, t, s, vm)
}

// ejectScript turns off the slot of a PCI device, as a guest's administrator may.
func ejectScript(pci string) string {
	return "for s in /sys/bus/pci/slots/*; do case " + pci + " in $(cat $s/address).*) echo 0 > $s/power;; esac; done"
}
