package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/brfuse/brfuse/bench/internal/echo"
	"github.com/brfuse/brfuse/bench/internal/floor"
	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// Pods in the guest, one for the floor and one for brfuse.
const (
	floorPod = "floor"
	fusedPod = "fused"
)

// slots are for how many vNICs the guest has slots: a batch by the pool and one
// beside it, and the floor's.
const slots = 62

// spareSlot is that of the floor's NIC that waits: the last of the first bridge,
// which brfuse fills from the other end.
const spareSlot = "brf-br1/1f"

// rig is a guest with all of what is compared.
type rig struct {
	lab     *vmlab.Lab
	scratch *vmlab.Scratch
	site    *site.Site
	vm      *vmlab.VM
	agent   *vmlab.GuestProcess
	ping    *echo.Pinger
	floor   *floor.Floor
	cold    *fused.Fused // by a network without a pool
	warm    *fused.Fused // by one that has one, once the rounds begin
}

// newRig boots the guest and starts all that is in it and around it.
func newRig(ctx context.Context, cpus int) (*rig, error) {
	r := &rig{}
	if err := r.setUp(ctx, cpus); err != nil {
		return nil, errors.Join(err, r.close()) //nolint:contextcheck // has to be done when ctx has ended too
	}
	return r, nil
}

func (r *rig) setUp(ctx context.Context, cpus int) (err error) {
	if r.lab, err = vmlab.Open(ctx, vmlab.Options{}); err != nil {
		return err
	}
	if r.scratch, err = vmlab.NewScratch("brfuse-bench"); err != nil {
		return err
	}
	prog, err := r.lab.GoBuild(ctx, floor.Source)
	if err != nil {
		return err
	}
	r.site, err = site.New(ctx, r.lab, site.Options{
		Dir: r.scratch.Dir, LogLevel: "info", Image: vmlab.Image{Files: map[string]string{floor.Program: prog}},
	})
	if err != nil {
		return err
	}
	if r.ping, err = echo.New(r.site.Net.NS()); err != nil {
		return err
	}
	if err := r.boot(ctx, cpus); err != nil {
		return err
	}
	if err := r.site.StartDaemon(ctx); err != nil {
		return err
	}
	if err := r.connect(ctx); err != nil {
		return err
	}
	if r.agent, err = r.vm.Find(ctx, filepath.Base(site.AgentPath)); err != nil {
		return err
	}
	where, err := r.slot(ctx)
	if err != nil {
		return err
	}
	return r.floor.Use(where)
}

// connect makes the floor, and the networks of brfuse when its NIC is there.
func (r *rig) connect(ctx context.Context) (err error) {
	r.floor, err = floor.New(ctx, floor.Config{
		VM: r.vm, Net: r.site.Net.NS(), Socket: r.portPath(), Pod: floorPod, Spare: spareSlot,
		Subnet: netip.MustParsePrefix("10.231.0.0/16"), Prefix: netip.MustParsePrefix("fd00:231::/64"),
	})
	if err != nil {
		return err
	}
	if err := r.site.AddVM(ctx, r.vm); err != nil {
		return fmt.Errorf("%w\n--- brfused:\n%s", err, r.site.LogTail())
	}
	r.cold, err = fused.New(ctx, r.site, r.vm.Name(), "cold", netip.MustParsePrefix("10.232.0.0/16"), netip.MustParsePrefix("fd00:232::/64"))
	if err != nil {
		return err
	}
	r.warm, err = fused.New(ctx, r.site, r.vm.Name(), "warm", netip.MustParsePrefix("10.233.0.0/16"), netip.MustParsePrefix("fd00:233::/64"))
	return err
}

// slot returns a slot that brfuse uses.
func (r *rig) slot(ctx context.Context) (string, error) {
	a, err := r.cold.Attach(ctx, fusedPod)
	if err == nil {
		_, _, err = r.cold.Detach(ctx, fusedPod)
	}
	return a.Slot, err
}

// portPath is the socket of the port that the floor's program uses.
func (r *rig) portPath() string { return filepath.Join(r.scratch.Dir, "bench.port") }

// ownNIC is a NIC of the VM itself, as every VM has one: it is eth0 in the first
// namespace, so that any other is renamed on its way to a pod.
var ownNIC = []string{"-netdev", "user,id=own,restrict=on", "-device", "virtio-net-pci,netdev=own"}

// boot boots the guest, with the agent running, and makes both pods.
func (r *rig) boot(ctx context.Context, cpus int) (err error) {
	cfg := vmlab.Config{Name: "bench", CPUs: cpus, VNICs: slots, ExtraArgs: append(floor.QEMUArgs(r.portPath()), ownNIC...)}
	if r.vm, err = r.site.BootConfig(ctx, cfg); err != nil {
		return err
	}
	for _, pod := range []string{floorPod, fusedPod} {
		if _, err := r.vm.AddPod(ctx, pod); err != nil {
			return fmt.Errorf("add pod %s: %w", pod, err)
		}
	}
	return nil
}

// close takes everything down.
func (r *rig) close() error {
	var errs []error
	if r.floor != nil {
		errs = append(errs, r.floor.Close())
	}
	for _, f := range []*fused.Fused{r.cold, r.warm} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if r.ping != nil {
		errs = append(errs, r.ping.Close())
	}
	if r.site != nil {
		errs = append(errs, r.site.Close())
	}
	return errors.Join(append(errs, r.scratch.Remove())...)
}
