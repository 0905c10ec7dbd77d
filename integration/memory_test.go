package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// footprint is what a guest and its QEMU take.
type footprint struct {
	guestKiB   int // of the guest's memory, in use
	qemuKiB    int // resident, with those pages of the guest's memory that it has touched
	qemuOwnKiB int // resident, without the guest's memory
	interrupts int // MSI interrupts that the guest's devices have
}

// minus returns the difference of two footprints.
func (f footprint) minus(g footprint) footprint {
	return footprint{f.guestKiB - g.guestKiB, f.qemuKiB - g.qemuKiB, f.qemuOwnKiB - g.qemuOwnKiB, f.interrupts - g.interrupts}
}

func lookAtFootprint(ctx context.Context, t *testing.T, vm *vmlab.VM, memMiB int) (f footprint) {
	t.Helper()
	meminfo, err := vm.Get(ctx, "/proc/meminfo")
	require.NoError(t, err)
	f.guestKiB = kib(t, string(meminfo), "MemTotal:") - kib(t, string(meminfo), "MemAvailable:")
	f.qemuKiB = rss(t, readFile(t, fmt.Sprintf("/proc/%d/status", vm.PID())))
	f.qemuOwnKiB = f.qemuKiB - residentRAM(t, vm.PID(), memMiB)
	out := inGuest(ctx, t, vm, "", "sh", "-c", "ls -d /sys/bus/pci/devices/*/msi_irqs/* | wc -l")
	f.interrupts, err = strconv.Atoi(strings.TrimSpace(out))
	require.NoError(t, err)
	return f
}

// kib returns a line of /proc/meminfo or of a /proc/PID/status.
func kib(t *testing.T, text, key string) int {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no "+key, text)
	return 0
}

// residentRAM returns how much of a guest's memory its QEMU has touched, in
// KiB: the resident part of the mapping of that size.
func residentRAM(t *testing.T, pid, memMiB int) int {
	t.Helper()
	var size int
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/smaps", pid))) {
		switch key, rest, _ := strings.Cut(line, ":"); key {
		case "Size":
			size = firstInt(rest)
		case "Rss":
			if size == memMiB<<10 {
				return firstInt(rest)
			}
		}
	}
	require.Fail(t, "no mapping of the guest's memory")
	return 0
}

func firstInt(s string) int {
	n, _ := strconv.Atoi(strings.Fields(s)[0])
	return n
}
