package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// abreast is how many calls the tests with many pods make at a time. A guest takes
// in one device after the other, so more gain little, and each waits for longer:
// with 600 vNICs and others busy, an unplug has taken a second.
const abreast = 4

// bounded runs fn for 0 to n-1, at most jobs at a time, and returns what failed.
// It begins no more once something has.
func bounded(n, jobs int, fn func(i int) error) error {
	errs := make([]error, n)
	var failed atomic.Bool
	next := make(chan int)
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(func() {
			for i := range next {
				if errs[i] = fn(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	for i := 0; i < n && !failed.Load(); i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// tellGuest prints what a guest has to say for itself.
func tellGuest(t *testing.T, vm *vmlab.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	const enough = 8000
	log, err := vm.Output(ctx, "sh", "-c", "cat /run/log/brfuse-agent.log /run/log/sh.log 2>/dev/null; true")
	t.Logf("agent's log (%v):\n%s\nconsole:\n%s", err, log[max(0, len(log)-enough):], vm.SerialTail())
	kernel, err := vm.Output(ctx, "dmesg")
	t.Logf("kernel's log (%v):\n%s", err, kernel[max(0, len(kernel)-enough):])
}

// podNames returns p1 to pn.
func podNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("p%d", i+1)
	}
	return names
}

// addBarePods makes many pods at once: namespaces with a name, and no process.
func addBarePods(ctx context.Context, t *testing.T, vm *vmlab.VM, names []string) {
	t.Helper()
	var script strings.Builder
	script.WriteString("mkdir -p /var /run/netns && { [ -e /var/run ] || ln -s /run /var/run; } && ip -batch - <<END\n")
	for _, name := range names {
		fmt.Fprintf(&script, "netns add %s\n", name)
	}
	script.WriteString("END\n")
	res, err := vm.Shell(ctx, script.String())
	require.NoError(t, err)
	require.NoError(t, res.Err(), "make %d pods", len(names))
}

// quantile returns the smallest of the values that so large a part of them
// doesn't exceed.
func quantile[T cmp.Ordered](values []T, part float64) T {
	sorted := slices.Sorted(slices.Values(values))
	i := int(part*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// milliseconds writes a duration as a number for a machine to read.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond).Microseconds()) / 1000
}
