package integration

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// nicTool is where guests have the program that moves and dirties NICs.
const nicTool = "/sbin/nictool"

// nicMAC is that of the NIC which the tests of the guest half plug by themselves.
const nicMAC = "02:00:5e:00:53:07"

// bootWithNICTool boots a guest without an agent, and with a pod.
func bootWithNICTool(t *testing.T, cpus int) (context.Context, *vmlab.VM) {
	t.Helper()
	ctx, lab := openLab(t)
	tool, err := lab.GoBuild(ctx, "./integration/internal/nictool")
	require.NoError(t, err)
	dir := shortDir(t)
	initrd, err := lab.Build(ctx, dir+"/initrd", vmlab.Image{
		Files:    map[string]string{nicTool: tool},
		Programs: []string{"/usr/sbin/ethtool", "/usr/sbin/tc", "/usr/sbin/nft", "/usr/sbin/bridge"},
		Modules:  []string{"nf_tables", "8021q", "macvlan", "ipvlan", "sch_ingress", "sch_tbf", "cls_u32", "veth", "bridge"},
	})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd, CPUs: cpus})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", vm.SerialTail())
		}
		assert.NoError(t, vm.Close())
	})
	_, err = vm.AddPod(ctx, "web")
	require.NoError(t, err)
	return ctx, vm
}

// plugByHand plugs a NIC with that many queue pairs, which leads nowhere.
func plugByHand(ctx context.Context, t *testing.T, vm *vmlab.VM, queues int) {
	t.Helper()
	type args map[string]any
	mon := vm.Monitor()
	_, err := mon.Do(ctx, "netdev_add", args{"type": "hubport", "id": "n0", "hubid": 0})
	assert.NoError(t, err)
	_, err = mon.Do(ctx, "device_add", args{
		"driver": "virtio-net-pci", "id": "d0", "netdev": "n0", "mac": nicMAC, "bus": "brf-br1", "addr": "1",
		"romfile": "", "disable-legacy": "on", "vectors": 2*queues + 2,
	})
	assert.NoError(t, err)
}

// runPlugged runs a program in the guest that awaits the NIC.
func runPlugged(ctx context.Context, t *testing.T, vm *vmlab.VM, queues int, argv ...string) string {
	t.Helper()
	// The program has to be there before the NIC, to know that it is new.
	plugged := make(chan struct{})
	timer := time.AfterFunc(2*time.Second, func() {
		defer close(plugged)
		plugByHand(ctx, t, vm, queues)
	})
	res, err := vm.Run(ctx, argv...)
	if !timer.Stop() {
		<-plugged
	}
	require.NoError(t, err)
	t.Log(res.Stderr)
	require.NoError(t, res.Err())
	return res.Stdout
}

// TestIntegrationRetrieveIsCheap compares attach and retrieval with the bare moves.
func TestIntegrationRetrieveIsCheap(t *testing.T) {
	ctx, vm := bootWithNICTool(t, 2)
	out := runPlugged(ctx, t, vm, 1, nicTool, "cycle", nicMAC, "web", "30")
	t.Log(out)
}

// scrubbed is what nictool tells of one tenant.
type scrubbed struct {
	Name              string
	Dirty, Left, Seen []string
	Took              time.Duration
	Rebound           bool
	Err               string
}

// TestIntegrationScrub has one tenant after the other dirty a vNIC, each in another
// way, and the last in all ways. What is left of each is nothing: at home the vNIC
// is as when it was plugged, and the next tenant sees it as the first one did.
func TestIntegrationScrub(t *testing.T) {
	ctx, vm := bootWithNICTool(t, 2)
	inGuest(ctx, t, vm, "", "sh", "-c", "mkdir -p /bpf /run/netns && mount -t bpf bpf /bpf && "+nicTool+" pin /bpf/pass")
	b, err := json.Marshal(dirts)
	require.NoError(t, err)
	require.NoError(t, vm.Put(ctx, "/tmp/dirts", b, 0o644))
	out := runPlugged(ctx, t, vm, 1, nicTool, "scrub", nicMAC, "/tmp/dirts")
	var all []scrubbed
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	require.Len(t, all, len(dirts)+1)
	for i, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			require.Empty(t, s.Err)
			assert.Empty(t, s.Seen, "what this tenant sees of those before")
			assert.Empty(t, s.Left, "what is left of this tenant")
			t.Logf("rebound %v, took %s", s.Rebound, s.Took)
			if i > 0 {
				assert.NotEmpty(t, s.Dirty, "the script did nothing")
			}
		})
	}
}
