package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/bench/internal/echo"
	"github.com/brfuse/brfuse/bench/internal/floor"
	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// Pods in the guest, one for each of the two that are compared.
const (
	floorPod = "floor"
	fusedPod = "fused"
)

// rig is a guest with both of what is compared.
type rig struct {
	lab   *vmlab.Lab
	dir   string
	site  *site.Site
	vm    *vmlab.VM
	agent *vmlab.GuestProcess
	ping  *echo.Pinger
	floor *floor.Floor
	fused *fused.Fused
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
	if r.dir, err = os.MkdirTemp("", "brfuse-bench"); err != nil {
		return err
	}
	prog, err := r.lab.GoBuild(ctx, floor.Source)
	if err != nil {
		return err
	}
	r.site, err = site.New(ctx, r.lab, site.Options{
		Dir: r.dir, LogLevel: "info", Image: vmlab.Image{Files: map[string]string{floor.Program: prog}},
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
	r.fused, err = fused.New(ctx, r.site, r.vm, netip.MustParsePrefix("10.232.0.0/16"), netip.MustParsePrefix("fd00:232::/64"))
	if err != nil {
		return err
	}
	if r.agent, err = r.vm.Find(ctx, filepath.Base(site.AgentPath)); err != nil {
		return err
	}
	slot, err := r.slot(ctx)
	if err != nil {
		return err
	}
	r.floor, err = floor.New(ctx, floor.Config{
		VM: r.vm, Net: r.site.Net.NS(), Socket: r.portPath(), Pod: floorPod, Slot: slot,
		Subnet: netip.MustParsePrefix("10.231.0.0/16"), Prefix: netip.MustParsePrefix("fd00:231::/64"),
	})
	return err
}

// slot returns a slot that brfuse uses.
func (r *rig) slot(ctx context.Context) (string, error) {
	a, err := r.fused.Attach(ctx, fusedPod)
	if err == nil {
		_, _, err = r.fused.Detach(ctx, fusedPod)
	}
	return a.Slot, err
}

// portPath is the socket of the port that the floor's program uses.
func (r *rig) portPath() string { return filepath.Join(r.dir, "bench.port") }

// boot boots the guest, with the agent running, and makes both pods.
func (r *rig) boot(ctx context.Context, cpus int) (err error) {
	cfg := vmlab.Config{Name: "bench", CPUs: cpus, ExtraArgs: floor.QEMUArgs(r.portPath())}
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
	if r.fused != nil {
		errs = append(errs, r.fused.Close())
	}
	if r.ping != nil {
		errs = append(errs, r.ping.Close())
	}
	if r.site != nil {
		errs = append(errs, r.site.Close())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
