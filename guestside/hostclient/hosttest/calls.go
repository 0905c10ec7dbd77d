package hosttest

import (
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// Detach is that of hostclient.Client.
func (f *Fake) Detach(ctx context.Context, pod, iface string) error {
	if err := f.begin(ctx, "Detach", pod+"/"+iface); err != nil {
		return err
	}
	done, err := f.lock(ctx, key(pod, iface))
	if err != nil {
		return err
	}
	defer done()
	f.mu.Lock()
	a, ok := f.attached[key(pod, iface)]
	if ok && a.Request.Manager == "" {
		f.mu.Unlock()
		return fmt.Errorf("detach %s/%s: made on the hypervisor: %w", pod, iface, vnic.ErrForbidden)
	}
	delete(f.attached, key(pod, iface))
	delete(f.broken, key(pod, iface))
	f.mu.Unlock()
	if ok && f.OnUnplug != nil {
		f.OnUnplug(a)
	}
	return nil
}

// Attachments is that of hostclient.Client.
func (f *Fake) Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error) {
	if err := f.begin(ctx, "Attachments", manager); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(f.sortedLocked(), func(a vnic.Attachment) bool {
		return a.Request.Manager == "" || manager != "" && a.Request.Manager != manager
	}), nil
}

// Check is that of hostclient.Client.
func (f *Fake) Check(ctx context.Context, pod, iface string) (vnic.Attachment, error) {
	if err := f.begin(ctx, "Check", pod+"/"+iface); err != nil {
		return vnic.Attachment{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.ownLocked(pod, iface)
	switch {
	case err != nil:
		return vnic.Attachment{}, err
	case f.broken[key(pod, iface)] != nil:
		return vnic.Attachment{}, f.broken[key(pod, iface)]
	case a.Phase != vnic.PhaseReady:
		return vnic.Attachment{}, fmt.Errorf("check %s/%s: it is %s, not ready: %w", pod, iface, a.Phase, vnic.ErrDiffers)
	}
	return a, nil
}

// ownLocked returns an attachment that a manager of the guest asked for.
func (f *Fake) ownLocked(pod, iface string) (vnic.Attachment, error) {
	a, ok := f.attached[key(pod, iface)]
	switch {
	case !ok:
		return a, fmt.Errorf("%s/%s: %w", pod, iface, vnic.ErrNotFound)
	case a.Request.Manager == "":
		return a, fmt.Errorf("%s/%s: made on the hypervisor: %w", pod, iface, vnic.ErrForbidden)
	}
	return a, nil
}

// Ready is that of hostclient.Client.
func (f *Fake) Ready(ctx context.Context, network string) error {
	if err := f.begin(ctx, "Ready", network); err != nil {
		return err
	}
	n, err := f.network(network)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.attached) >= f.Slots {
		return &vnic.NoSlotError{VM: "vm1", Used: len(f.attached), Total: f.Slots}
	}
	for i := range n.Subnets {
		if _, err := f.freeLocked(n, i); err != nil {
			return err
		}
	}
	return nil
}

// Publish is that of hostclient.Client.
func (f *Fake) Publish(ctx context.Context, pod, iface string, ports []vnic.PortMapping) error {
	if err := f.begin(ctx, "Publish", fmt.Sprintf("%s/%s %v", pod, iface, ports)); err != nil {
		return err
	}
	done, err := f.lock(ctx, key(pod, iface))
	if err != nil {
		return err
	}
	defer done()
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.ownLocked(pod, iface)
	if err != nil {
		return err
	}
	a.Request.Ports = slices.Clone(ports)
	if a.Request.Network == "" {
		return fmt.Errorf("publish %s/%s: seeded without a network: %w", pod, iface, vnic.ErrInvalid)
	}
	check := a.Request
	check.VM = "vm1"
	if _, err := check.Complete(); err != nil {
		return err
	}
	if err := f.portsFreeLocked(key(pod, iface), ports); err != nil {
		return err
	}
	f.attached[key(pod, iface)] = a
	return nil
}
