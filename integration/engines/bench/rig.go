package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/integration/engines"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// Places in the guest.
const (
	plugins = "/usr/lib/cni"
	client  = "/sbin/cnitimes"
)

// brfuse's networks in the guest; one has a pool there.
const (
	vmName      = "bench"
	network     = "bench"
	warmNetwork = "warm"
)

// spareMAC is that of the NIC that host-device gives to pods. Nothing is behind it.
const spareMAC = "52:54:00:00:00:99"

// rig is a guest with all that is compared.
type rig struct {
	lab     *vmlab.Lab
	scratch *vmlab.Scratch
	site    *site.Site
	guest   engines.Guest
}

// newRig boots the guest and starts all that is in it and around it.
func newRig(ctx context.Context, cpus int) (*rig, error) {
	r := &rig{}
	if err := r.setUp(ctx, cpus); err != nil {
		return nil, errors.Join(r.explain(ctx, err), r.close()) //nolint:contextcheck // has to be done when ctx has ended too
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
	img, err := r.image(ctx)
	if err != nil {
		return err
	}
	// How long a request took is told by the agent's log.
	img.Start = [][]string{{site.AgentPath, "-log-level", "debug"}}
	r.site, err = site.New(ctx, r.lab, site.Options{Dir: r.scratch.Dir, LogLevel: "info", AgentByHand: true, Image: img})
	if err != nil {
		return err
	}
	if err := r.site.StartDaemon(ctx); err != nil {
		return err
	}
	if _, err := r.site.MustBrfuse(ctx, "network", "create", network, "--subnet", "10.231.0.0/16"); err != nil {
		return err
	}
	if _, err := r.site.MustBrfuse(ctx, "network", "create", warmNetwork, "--subnet", "10.232.0.0/16"); err != nil {
		return err
	}
	cfg, err := engines.Config(ctx, r.lab, vmlab.Config{Name: vmName, CPUs: cpus, ExtraArgs: []string{
		"-netdev", "hubport,id=spare,hubid=9", "-device", "virtio-net-pci,netdev=spare,mac=" + spareMAC,
	}})
	if err != nil {
		return err
	}
	vm, err := r.site.BootConfig(ctx, cfg)
	if err != nil {
		return err
	}
	r.guest = engines.Guest{VM: vm}
	return r.site.AddVM(ctx, vm)
}

// image is what the guest has beside its disk.
func (r *rig) image(ctx context.Context) (vmlab.Image, error) {
	img, err := engines.Image(ctx, r.lab, vmlab.Image{})
	if err != nil {
		return img, err
	}
	if img.Files[plugins+"/brfuse"], err = r.lab.GoBuild(ctx, "./cmd/brfuse-cni"); err != nil {
		return img, err
	}
	img.Files[client], err = r.lab.GoBuildIn(ctx, "integration/engines", "./bench/cnitimes")
	return img, err
}

// explain adds the ends of the logs to an error.
func (r *rig) explain(ctx context.Context, err error) error {
	if r.site == nil {
		return err
	}
	err = fmt.Errorf("%w\n--- brfused:\n%s", err, r.site.LogTail())
	if r.guest.VM == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	log, lerr := r.guest.Get(ctx, agentLog)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	return fmt.Errorf("%w\n--- brfuse-agent:\n%s", err, log[max(0, len(log)-4000):])
}

// close takes everything down.
func (r *rig) close() error {
	var errs []error
	if r.site != nil {
		errs = append(errs, r.site.Close())
	}
	return errors.Join(append(errs, r.scratch.Remove())...)
}
