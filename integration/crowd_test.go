package integration

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// crowd is a guest with room for many vNICs, and pods in it.
type crowd struct {
	site  *site.Site
	vm    *vmlab.VM
	pods  []string
	calls *calls
	mem   int           // MiB
	bare  footprint     // without vNICs
	took  time.Duration // of the boot
}

// newCrowd boots a guest with as many pods as it has room for vNICs.
func newCrowd(t *testing.T, cfg vmlab.Config) (context.Context, *crowd) {
	t.Helper()
	ctx, s := newSite(t, site.Options{LogLevel: "info"})
	run(ctx, t, s, "network", "create", "blue", "--subnet", "10.231.0.0/21")
	began := time.Now()
	vm, err := s.BootConfig(ctx, cfg)
	require.NoError(t, err)
	c := &crowd{site: s, vm: vm, pods: podNames(cfg.VNICs), mem: cfg.Mem, took: time.Since(began)}
	t.Cleanup(func() {
		if t.Failed() {
			tellGuest(t, vm)
		}
	})
	addBarePods(ctx, t, vm, c.pods)
	require.NoError(t, s.AddVM(ctx, vm))
	c.calls = newCalls(s, vm.Name())
	c.bare = lookAtFootprint(ctx, t, vm, c.mem)
	return ctx, c
}

// each runs fn for pods, some at a time, and returns the wall time by their number.
func each(pods []string, abreast int, fn func(pod string) error) (time.Duration, error) {
	began := time.Now()
	err := bounded(len(pods), abreast, func(i int) error { return fn(pods[i]) })
	return time.Since(began) / time.Duration(max(1, len(pods))), err
}

// pingAll has the host ping pods.
func (c *crowd) pingAll(ctx context.Context, t *testing.T, pods []string) {
	t.Helper()
	_, err := each(pods, 16, func(pod string) error { return c.calls.ping(ctx, pod) })
	require.NoError(t, err)
}

// detachAll detaches pods, checks that nothing is left of any, and returns the
// wall time by their number.
func (c *crowd) detachAll(ctx context.Context, t *testing.T, pods []string) time.Duration {
	t.Helper()
	took, err := each(pods, abreast, func(pod string) error {
		_, err := c.calls.detach(ctx, pod)
		return err
	})
	require.NoError(t, err)
	settled(ctx, t, c.site, c.vm)
	assertNothingLeft(ctx, t, c.site, c.vm)
	return took
}

// perVNIC fills in what n vNICs take in all.
func (c *crowd) perVNIC(ctx context.Context, t *testing.T, res *capacity, n int) {
	t.Helper()
	f := lookAtFootprint(ctx, t, c.vm, c.mem).minus(c.bare)
	per := func(x int) float64 { return tenths(float64(x) / float64(n)) }
	res.GuestKiB, res.QEMUKiB, res.QEMUOwnKiB, res.Interrupts = per(f.guestKiB), per(f.qemuKiB), per(f.qemuOwnKiB), per(f.interrupts)
}

// tenths rounds for print.
func tenths(x float64) float64 { return math.Round(10*x) / 10 }
