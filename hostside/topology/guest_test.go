package topology_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationGuest boots layouts of each kind with a real guest, the largest
// one among them: NICs come and go in the first and in the last slot.
func TestIntegrationGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots guests")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	lab, dir, initrd := openLab(ctx, t)
	for i, w := range []topology.Wish{
		{VNICs: 434},
		{VNICs: topology.MaxVNICs},
		{VNICs: 62, Machine: topology.PC},
		{VNICs: 744, Machine: topology.PC},
	} {
		t.Run(fmt.Sprintf("%d on %s", w.VNICs, w.Machine), func(t *testing.T) {
			l, err := topology.PlanFor(w)
			require.NoError(t, err)
			began := time.Now()
			vm, err := lab.Boot(ctx, vmlab.Config{Name: fmt.Sprint("vm", i), Dir: dir, Initrd: initrd, VNICs: w.VNICs, Machine: w.Machine})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, vm.Close()) }) //nolint:contextcheck // has to be done when ctx has ended too
			t.Logf("booted in %s", time.Since(began))
			for _, slot := range []struct{ bridge, device int }{{1, 1}, {l.Bridges, topology.SlotsPerBridge}} {
				comeAndGo(ctx, t, vm, fmt.Sprint("brf-br", slot.bridge), slot.device)
			}
		})
	}
}

func openLab(ctx context.Context, t *testing.T) (lab *vmlab.Lab, dir, initrd string) {
	t.Helper()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	dir, err = os.MkdirTemp("", "brf")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	initrd, err = lab.Build(ctx, filepath.Join(dir, "initrd"), vmlab.Image{})
	require.NoError(t, err)
	return lab, dir, initrd
}

// comeAndGo plugs a NIC, has the guest's driver take it, and unplugs it.
func comeAndGo(ctx context.Context, t *testing.T, vm *vmlab.VM, bus string, device int) {
	t.Helper()
	began := time.Now()
	_, err := vm.Monitor().Do(ctx, "device_add", map[string]any{
		"driver": "virtio-net-pci", "id": "nic", "bus": bus, "addr": fmt.Sprintf("%#x", device),
		"disable-legacy": "on", "romfile": "", "mac": "02:00:00:00:aa:01",
	})
	require.NoError(t, err)
	res, err := vm.Shell(ctx, `i=0; until grep -q 02:00:00:00:aa:01 /sys/class/net/*/address; do i=$((i+1)); [ $i -lt 200 ] || exit 1; sleep 0.05; done`)
	require.NoError(t, err)
	require.NoError(t, res.Err(), "%s/%02x: the guest has no such NIC", bus, device)
	came := time.Since(began)
	mark := vm.Monitor().Mark()
	began = time.Now()
	_, err = vm.Monitor().Do(ctx, "device_del", map[string]any{"id": "nic"})
	require.NoError(t, err)
	require.NoError(t, vm.Monitor().AwaitDeleted(ctx, mark, "nic"))
	t.Logf("%s/%02x: came in %s, went in %s", bus, device, came, time.Since(began))
}
