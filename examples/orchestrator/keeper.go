package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// keeper keeps replicas of an app attached.
type keeper struct {
	orch         *orchestrator.Orchestrator
	app, network string
	replicas     int
	vms          []vnic.VM
	retry        time.Duration // after which what failed is tried again
	log          *slog.Logger
}

// run keeps them until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	for _, vm := range k.vms {
		if err := k.orch.AddVM(ctx, vm); err != nil {
			return err
		}
	}
	subnet := netip.MustParsePrefix("10.230.0.0/24")
	if _, err := k.orch.CreateNetwork(ctx, vnic.Network{Name: k.network, Subnets: []netip.Prefix{subnet}, Masquerade: true}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	changed := make(chan struct{}, 1)
	watching.Go(func() {
		for _, err := range k.orch.Watch(ctx) {
			if err != nil {
				cancel(err)
				return
			}
			select {
			case changed <- struct{}{}:
			default: // it is known already
			}
		}
	})
	retry := time.NewTicker(k.retry)
	defer retry.Stop()
	for {
		wake := changed
		if err := k.place(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("not all replicas are as they should be, it will be tried again", "error", err)
			wake = nil // what has failed is a change, too
		}
		select {
		case <-wake:
		case <-retry.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// place attaches the replicas that have no vNIC, and detaches those that are too many.
func (k *keeper) place(ctx context.Context) error {
	list, err := k.orch.List(ctx, orchestrator.Filter{Network: k.network})
	if err != nil {
		return err
	}
	missing, load := map[string]bool{}, map[string]int{}
	for i := range k.replicas {
		missing[fmt.Sprintf("%s-%d", k.app, i)] = true
	}
	var errs []error
	for _, a := range list {
		if load[a.Request.VM]++; missing[a.Request.Pod] {
			delete(missing, a.Request.Pod)
			continue
		}
		_, err := k.orch.Detach(ctx, a.ID)
		errs = append(errs, err)
	}
	for pod := range missing {
		errs = append(errs, k.attach(ctx, pod, load))
	}
	return errors.Join(errs...)
}

// attach gives a replica a vNIC in the first VM that has its pod, and room.
func (k *keeper) attach(ctx context.Context, pod string, load map[string]int) error {
	var errs []error
	for _, vm := range slices.SortedStableFunc(slices.Values(k.vms), func(a, b vnic.VM) int { return load[a.Name] - load[b.Name] }) {
		a, err := k.orch.Attach(ctx, vnic.Request{
			Key: vnic.Key{VM: vm.Name, Pod: pod, Interface: "eth0"}, Network: k.network, Labels: map[string]string{"app": k.app},
		})
		if err == nil {
			load[vm.Name]++
			k.log.Info("replica is attached", "pod", pod, "vm", vm.Name, "addresses", a.Leases)
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
