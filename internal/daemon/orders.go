package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/vnic"
)

// Limits of what a guest's order takes, whatever the guest has in mind. The long
// one is that of a whole attach, which the orchestrator's own deadlines bound, and
// of the wait for another order on the same interface.
const (
	orderLimit = 90 * time.Second
	askLimit   = 10 * time.Second
)

// managers are the container engines' sides that may give orders.
var managers = []string{"cni", "docker"}

// orders carries out what guests ask for. It implements [guestlink.Orders]: a
// guest acts on its own VM, on the networks that the VM may use, on attachments
// that were made for it, and within quotas; it learns nothing of other VMs.
type orders struct {
	log   *slog.Logger
	ready <-chan struct{} // closed when orch is set
	orch  *orchestrator.Orchestrator
	ports PortRange
	names *names.Server // nil: no names are served
	// publishing lets each VM change published ports one by one. Each change has the
	// host look through all tracked connections, which others wait for.
	publishing keylock.Locks[string]
}

// order runs fn within limit, once the orchestrator is there.
func (o *orders) order(ctx context.Context, limit time.Duration, fn func(context.Context, *orchestrator.Orchestrator) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-o.ready:
	case <-ctx.Done():
		return fmt.Errorf("brfused is starting: %w: %w", vnic.ErrHostUnavailable, ctx.Err())
	}
	err := fn(ctx, o.orch)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return fmt.Errorf("brfused is stopping: %w", vnic.ErrHostUnavailable)
	}
	return o.discreet(err)
}

// discreet keeps from a guest whose an address or a port is: that may be another
// VM's pod. The log has it.
func (o *orders) discreet(err error) error {
	for _, sentinel := range []error{vnic.ErrAddressTaken, vnic.ErrPortTaken} {
		if !errors.Is(err, sentinel) {
			continue
		}
		o.log.Info("guest asked for what is taken", "error", err)
		if taken, ok := errors.AsType[*vnic.TakenError](err); ok {
			return fmt.Errorf("%s: choose another: %w", taken.What, sentinel)
		}
		return fmt.Errorf("choose another: %w", sentinel)
	}
	return err
}

// allowed returns the networks that a VM may ask for.
func allowed(ctx context.Context, orch *orchestrator.Orchestrator, name string) (vnic.VM, []vnic.Network, error) {
	vm, err := orch.VM(ctx, name)
	if err != nil {
		return vm, nil, err
	}
	nets, err := orch.Networks(ctx)
	return vm, slices.DeleteFunc(nets, func(n vnic.Network) bool { return !vm.Allows(n.Name) }), err
}

// choose returns the network of that name if the VM may ask for it, or the only
// one that it may ask for when the name is empty.
func choose(ctx context.Context, orch *orchestrator.Orchestrator, name, network string) (string, error) {
	vm, nets, err := allowed(ctx, orch, name)
	switch {
	case err != nil:
		return "", err
	case network != "" && !vm.Allows(network):
		return "", fmt.Errorf("network %s is not among those that vm %s may ask for, %v; see `brfuse vm add --guest-network` on the hypervisor: %w",
			network, name, vm.GuestNetworks, vnic.ErrForbidden)
	case network != "":
		return network, nil
	case len(nets) == 1:
		return nets[0].Name, nil
	}
	names := make([]string, len(nets))
	for i, n := range nets {
		names[i] = n.Name
	}
	return "", fmt.Errorf("none is named, and vm %s may ask for %d, %v: %w", name, len(nets), names, vnic.ErrUnknownNetwork)
}

// Networks implements the method of [guestlink.Orders].
func (o *orders) Networks(ctx context.Context, vm string) (nets []vnic.Network, err error) {
	err = o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		_, nets, err = allowed(ctx, orch, vm)
		return err
	})
	return nets, err
}

// Attach implements the method of [guestlink.Orders].
func (o *orders) Attach(ctx context.Context, vm string, req vnic.Request) (a vnic.Attachment, err error) {
	req.VM = vm
	if !slices.Contains(managers, req.Manager) {
		return a, fmt.Errorf("attach for manager %q: it is none of %v: %w", req.Manager, managers, vnic.ErrForbidden)
	}
	if err := o.ports.check(req.Ports); err != nil {
		return a, err
	}
	if err := checkQueues(req.Queues); err != nil {
		return a, err
	}
	err = o.order(ctx, orderLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		if req.Network, err = choose(ctx, orch, vm, req.Network); err != nil {
			return err
		}
		a, err = orch.Attach(ctx, req)
		if err == nil && o.names != nil {
			a.DNS = resolver(o.names, a)
		}
		return err
	})
	return a, err
}

// Detach implements the method of [guestlink.Orders].
func (o *orders) Detach(ctx context.Context, vm, pod, iface string) error {
	return o.order(ctx, orderLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		_, err := orch.DetachManaged(ctx, vnic.Key{VM: vm, Pod: pod, Interface: iface})
		return err
	})
}

// Attachments implements the method of [guestlink.Orders].
func (o *orders) Attachments(ctx context.Context, vm, manager string) (list []vnic.Attachment, err error) {
	err = o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		list, err = orch.List(ctx, orchestrator.Filter{VM: vm, Manager: manager})
		list = slices.DeleteFunc(list, func(a vnic.Attachment) bool { return a.Request.Manager == "" })
		return err
	})
	return list, err
}

// Check implements the method of [guestlink.Orders].
func (o *orders) Check(ctx context.Context, vm, pod, iface string) (a vnic.Attachment, err error) {
	err = o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		a, err = own(orch.Inspect(ctx, vnic.Key{VM: vm, Pod: pod, Interface: iface}))
		return err
	})
	return a, err
}

// own hides an attachment that was made on the hypervisor from the guest.
func own(a vnic.Attachment, err error) (vnic.Attachment, error) {
	if a.ID != "" && a.Request.Manager == "" {
		return vnic.Attachment{}, fmt.Errorf("attachment %s was made on the hypervisor: %w", a.ID, vnic.ErrForbidden)
	}
	return a, err
}

// Ready implements the method of [guestlink.Orders].
func (o *orders) Ready(ctx context.Context, vm, network string) error {
	return o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		network, err := choose(ctx, orch, vm, network)
		if err != nil {
			return err
		}
		return orch.Ready(ctx, vm, network)
	})
}

// Publish implements the method of [guestlink.Orders].
func (o *orders) Publish(ctx context.Context, vm, pod, iface string, ports []vnic.PortMapping) error {
	if err := o.ports.check(ports); err != nil {
		return err
	}
	return o.order(ctx, orderLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		unlock, err := o.publishing.Lock(ctx, vm)
		if err != nil {
			return fmt.Errorf("publish ports: wait for another change: %w", err)
		}
		defer unlock()
		a, err := own(orch.Find(ctx, vnic.Key{VM: vm, Pod: pod, Interface: iface}))
		if err != nil {
			return err
		}
		_, err = orch.Publish(ctx, a.ID, ports)
		return err
	})
}

// Reserve implements the method of [guestlink.Orders].
func (o *orders) Reserve(ctx context.Context, vm, network string, want netip.Addr, ipv6 bool) (p netip.Prefix, err error) {
	err = o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		if network, err = choose(ctx, orch, vm, network); err != nil {
			return err
		}
		p, err = orch.Reserve(ctx, vm, network, want, ipv6)
		return err
	})
	return p, err
}

// Unreserve implements the method of [guestlink.Orders].
func (o *orders) Unreserve(ctx context.Context, vm, network string, addrs []netip.Addr) error {
	return o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		return orch.Unreserve(ctx, vm, network, addrs)
	})
}

// Reservations implements the method of [guestlink.Orders].
func (o *orders) Reservations(ctx context.Context, vm string) (list []vnic.Reservation, err error) {
	err = o.order(ctx, askLimit, func(ctx context.Context, orch *orchestrator.Orchestrator) error {
		list, err = orch.Reservations(ctx, vm)
		return err
	})
	return list, err
}
