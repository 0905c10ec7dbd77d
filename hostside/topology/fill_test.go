package topology_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// fillEnv is the environment variable that says how many NICs
// TestIntegrationFill plugs, at most [topology.MaxVNICs].
const fillEnv = "BRFUSE_TOPOLOGY_FILL"

// TestIntegrationFill fills a layout by bare NICs, with vectors chosen as brfuse
// does, and tells how plugs grow: the time until the guest's driver has the NIC,
// and the CPU time of QEMU with all its threads, which a busy machine lengthens less.
func TestIntegrationFill(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	n, err := strconv.Atoi(cmp.Or(os.Getenv(fillEnv), "62"))
	require.NoError(t, err, fillEnv)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	lab, dir, initrd := openLab(ctx, t)
	l, err := topology.PlanFor(topology.Wish{VNICs: n, CPUs: 2})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm", Dir: dir, Initrd: initrd, VNICs: n, CPUs: l.CPUs, Mem: 1024})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	room := slots.Bounds(l.CPUs, l.Bridges)
	for first := 0; first < n; {
		var took []time.Duration
		cpu, memory := usage(t, vm.PID())
		vectors := 0
		for range min(10, n-first) {
			vectors = room.Choose(1, l.Slots-first-1)
			room = room.Take(vectors)
			took = append(took, fill(ctx, t, vm, first, vectors))
			first++
		}
		after, grown := usage(t, vm.PID())
		slices.Sort(took)
		t.Logf("vnics %d-%d, %d vectors: median %s, cpu %s, memory %d KiB each", first-len(took)+1, first, vectors,
			took[len(took)/2].Round(time.Millisecond), ((after - cpu) / time.Duration(len(took))).Round(time.Millisecond), (grown-memory)/len(took))
	}
}

// fill plugs the n-th NIC, and returns how long it takes until the driver is ready.
func fill(ctx context.Context, t *testing.T, vm *vmlab.VM, n, vectors int) time.Duration {
	t.Helper()
	id := fmt.Sprint("nic", n)
	began := time.Now()
	_, err := vm.Monitor().Do(ctx, "device_add", map[string]any{
		"driver": "virtio-net-pci", "id": id, "bus": fmt.Sprint("brf-br", n/topology.SlotsPerBridge+1),
		"addr": fmt.Sprintf("%#x", n%topology.SlotsPerBridge+1), "vectors": vectors,
		"ioeventfd": false, "disable-legacy": "on", "romfile": "",
	})
	require.NoError(t, err)
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		out, err := vm.Monitor().Do(ctx, "x-query-virtio-status", map[string]any{"path": "/machine/peripheral/" + id + "/virtio-backend"})
		require.NoError(t, err)
		var is struct{ Status struct{ Statuses []string } }
		require.NoError(t, json.Unmarshal(out, &is))
		if slices.ContainsFunc(is.Status.Statuses, func(s string) bool { return strings.Contains(s, "DRIVER_OK") }) {
			return time.Since(began)
		}
		select {
		case <-again.C:
		case <-limit.C:
			require.FailNow(t, "the guest's driver does not take the NIC", "%s: %s", id, out)
		}
	}
}

// usage returns a process's CPU time so far, and its memory in KiB.
func usage(t *testing.T, pid int) (cpu time.Duration, memory int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		ran, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		require.NoError(t, err)
		cpu += time.Duration(ns)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	memory, err = strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return cpu, memory
}
