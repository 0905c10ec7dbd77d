package integration

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationVMLife ends a guest with pods and a pool, in each way that a
// guest has: its pods are gone, their addresses are free again, the pool fills
// up, and new pods are attached.
func TestIntegrationVMLife(t *testing.T) {
	for _, tc := range []struct {
		name string
		ends func(*vmlab.VM, context.Context) error
	}{
		{"reset", (*vmlab.VM).Reset},
		{"reboot from within", (*vmlab.VM).Reboot},
		{"QEMU killed", (*vmlab.VM).Restart},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, s := newSite(t, site.Options{Race: true})
			run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
			vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", Reboots: true})
			require.NoError(t, err)
			t.Cleanup(func() {
				if t.Failed() {
					tellGuest(t, vm)
				}
			})
			pods := podNames(4)
			makePods(ctx, t, vm, pods)
			require.NoError(t, s.AddVM(ctx, vm))
			setPool(ctx, t, s, 3, 6)
			awaitFull(ctx, t, s, 3)
			for range 2 { // the second life has nothing of the first
				live(ctx, t, s, vm, pods)
				require.NoError(t, tc.ends(vm, ctx))
				require.NoError(t, s.AwaitAgent(ctx, "vm1"))
				awaitFull(ctx, t, s, 3)
				assert.Empty(t, settled(ctx, t, s, vm).Store)
				makePods(ctx, t, vm, pods)
			}
			live(ctx, t, s, vm, pods)
			for _, pod := range pods {
				run(ctx, t, s, "detach", "--pod", pod)
			}
			dropPool(ctx, t, s)
			assertNothingLeft(ctx, t, s, vm)
		})
	}
}

func makePods(ctx context.Context, t *testing.T, vm *vmlab.VM, pods []string) {
	t.Helper()
	for _, pod := range pods {
		_, err := vm.AddPod(ctx, pod)
		require.NoError(t, err)
	}
}

// live attaches pods at addresses that are always the same: all but the last from
// the pool, the last with a MAC of its own, which no pool has.
func live(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, pods []string) {
	t.Helper()
	last := len(pods) - 1
	for i, pod := range pods {
		args := []string{"--pod", pod, "--ip", bluePrefix4 + string(rune('1'+i)) + "0"}
		if i == last {
			args = append(args, "--mac", "02:00:5e:00:53:09")
		}
		a := attach(ctx, t, s, args...)
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
		var steps []string
		for _, x := range a.Timings {
			steps = append(steps, x.Step)
		}
		if i == last {
			assert.Contains(t, steps, "plug")
		} else {
			assert.NotContains(t, steps, "plug", "pod %s wasn't attached from the pool", pod)
		}
	}
	awaitFull(ctx, t, s, 3)
	assert.Len(t, settled(ctx, t, s, vm).Store, len(pods))
}
