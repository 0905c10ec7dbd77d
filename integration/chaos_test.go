package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/vnic"
)

// Codes of refusals that say plainly that the time isn't right.
const (
	vmGone   vnic.Code = "vm_gone"
	noAgent  vnic.Code = "agent_unavailable"
	noSlot   vnic.Code = "no_slot"
	notThere vnic.Code = "nic_missing"
)

// assertEachHasOne checks that pods have one vNIC each, which answers, and that
// nothing else has any.
func assertEachHasOne(ctx context.Context, t *testing.T, c *calls, vm *vmlab.VM, pods []string) {
	t.Helper()
	assert.Len(t, settled(ctx, t, c.site, vm).Store, len(pods))
	for _, pod := range pods {
		links := inGuest(ctx, t, vm, pod, "ip", "-o", "link")
		assert.Equal(t, 1, strings.Count(links, "parentbus virtio")+strings.Count(links, ": eth0: "), "in pod %s:\n%s", pod, links)
	}
	_, err := each(pods, len(pods), func(pod string) error { return c.ping(ctx, pod) })
	require.NoError(t, err)
}

// detachEach detaches pods and checks that no attachment is left.
func detachEach(ctx context.Context, t *testing.T, c *calls, vm *vmlab.VM, pods []string) {
	t.Helper()
	_, err := each(pods, len(pods), func(pod string) error {
		_, err := c.detach(ctx, pod)
		return err
	})
	require.NoError(t, err)
	assert.Empty(t, settled(ctx, t, c.site, vm).Store)
}

// TestIntegrationAttachDuringBoot attaches pods from before their guest's
// firmware runs: each attach succeeds, or says that the guest isn't there yet,
// and in the end each pod has one vNIC.
func TestIntegrationAttachDuringBoot(t *testing.T) {
	pods := podNames(8)
	script := "for p in " + strings.Join(pods, " ") + "; do podctl add $p; done; exec " + site.AgentPath
	ctx, s := newSite(t, site.Options{Race: true, AgentByHand: true, Image: vmlab.Image{
		Modules: []string{"nf_tables"}, Programs: []string{"/usr/sbin/nft"},
		Start: [][]string{{"sh", "-c", script}},
	}})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	reach := []string{"--qmp", s.Dir + "/vm1.qmp"}
	if lv := s.Libvirt(); lv != nil {
		reach = []string{"--libvirt", lv.Address("vm1")}
	}
	run(ctx, t, s, append([]string{"vm", "add", "vm1", "--channel", s.Dir + "/vm1.agent"}, reach...)...)
	c := newCalls(s, "vm1")
	booted := make(chan error, 1)
	var vm *vmlab.VM
	go func() {
		var err error
		vm, err = s.Boot(ctx, "vm1", 31)
		booted <- err
	}()
	_, err := each(pods, len(pods), func(pod string) error { return c.insist(ctx, pod, c.attach, vmGone, noAgent) })
	require.NoError(t, <-booted)
	require.NoError(t, err)
	t.Logf("refusals: %v", c.refusals)
	assertEachHasOne(ctx, t, c, vm, pods)
	detachEach(ctx, t, c, vm, pods)
	assertNothingLeft(ctx, t, s, vm)
}

// TestIntegrationBusySlot has attaches compete for the only slot while the vNIC
// in it is on its way out, by detach, and by somebody else at the same time.
func TestIntegrationBusySlot(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "p1", "p2")
	a := attach(ctx, t, s, "--pod", "p1")
	fillSlots(ctx, t, vm, a)
	fails(ctx, t, s, string(noSlot), "in use", "attach", "--vm", "vm1", "--pod", "p2")
	c := newCalls(s, "vm1")
	there, next := "p1", "p2"
	for round := range 10 {
		var wg sync.WaitGroup
		var detached, attached error
		wg.Go(func() { _, detached = c.detach(ctx, there) })
		wg.Go(func() { attached = c.insist(ctx, next, c.attach, noSlot) })
		if round%2 == 1 {
			_, err := vm.Monitor().Do(ctx, "device_del", map[string]any{"id": deviceID(vm, a.Device)})
			t.Logf("unplugged by hand: %v", err)
		}
		wg.Wait()
		require.NoError(t, detached)
		require.NoError(t, attached)
		assertEachHasOne(ctx, t, c, vm, []string{next})
		there, next = next, there
		list, err := s.List(ctx)
		require.NoError(t, err)
		a = list[0]
	}
	t.Logf("refusals: %v", c.refusals)
	detachEach(ctx, t, c, vm, []string{there})
	assertNothingLeft(ctx, t, s, vm)
}

// fillSlots takes all free slots of a vNIC's bus by devices that aren't brfuse's.
func fillSlots(ctx context.Context, t *testing.T, vm *vmlab.VM, a attachment) {
	t.Helper()
	bus, _, _ := strings.Cut(a.Slot, "/")
	for n := 1; ; n++ {
		_, err := vm.Monitor().Do(ctx, "device_add", map[string]any{"driver": "pci-testdev", "id": fmt.Sprintf("stranger%d", n), "bus": bus})
		if err != nil {
			require.ErrorContains(t, err, "no slot", "device %d", n)
			return
		}
	}
}

// TestIntegrationAgentRestarts kills the agent again and again while pods are
// attached and detached, without and with a pool.
func TestIntegrationAgentRestarts(t *testing.T) {
	for _, tc := range []struct {
		name      string
		low, high int
	}{{name: "cold"}, {name: "warm", low: 3, high: 6}} {
		t.Run(tc.name, func(t *testing.T) {
			pods := podNames(4)
			ctx, s, vm := newPods(t, site.Options{Race: true, AgentByHand: true}, pods...)
			if tc.high > 0 {
				setPool(ctx, t, s, tc.low, tc.high)
			}
			c := newCalls(s, "vm1")
			stop := make(chan struct{})
			var cycles sync.WaitGroup
			errs := make([]error, len(pods))
			for i, pod := range pods {
				cycles.Go(func() { errs[i] = c.cycle(ctx, pod, stop, noAgent, notThere) })
			}
			for i := range 8 {
				agent := startAgent(ctx, t, s, vm)
				pause(ctx, time.Duration(100+70*i)*time.Millisecond)
				require.NoError(t, agent.Kill(ctx))
			}
			startAgent(ctx, t, s, vm)
			close(stop)
			cycles.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			t.Logf("refusals: %v", c.refusals)
			assertEachHasOne(ctx, t, c, vm, pods)
			detachEach(ctx, t, c, vm, pods)
			if tc.high > 0 {
				dropPool(ctx, t, s)
			}
			assertNothingLeft(ctx, t, s, vm)
		})
	}
}

// cycle attaches and detaches a pod until it is to stop, and leaves it attached.
func (c *calls) cycle(ctx context.Context, pod string, stop <-chan struct{}, codes ...vnic.Code) error {
	for {
		if err := c.insist(ctx, pod, c.attach, codes...); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if err := c.insist(ctx, pod, c.detach, codes...); err != nil {
			return err
		}
	}
}

// pause lets a while pass in which others do what they do.
func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}
