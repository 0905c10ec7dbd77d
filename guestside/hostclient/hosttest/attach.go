package hosttest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// Attach is that of hostclient.Client.
func (f *Fake) Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error) {
	if err := f.begin(ctx, "Attach", req.Pod+"/"+req.Interface); err != nil {
		return vnic.Attachment{}, err
	}
	a, err := f.attach(ctx, req)
	if err != nil {
		return vnic.Attachment{}, fmt.Errorf("attach %s/%s: %w", req.Pod, req.Interface, err)
	}
	return a, nil
}

func (f *Fake) attach(ctx context.Context, req vnic.Request) (a vnic.Attachment, err error) {
	if req, err = f.complete(req); err != nil {
		return a, err
	}
	k := key(req.Pod, req.Interface)
	done, err := f.lock(ctx, k)
	if err != nil {
		return a, err
	}
	defer done()
	f.mu.Lock()
	if old, ok := f.attached[k]; ok {
		f.mu.Unlock()
		return old, compare(old, req)
	}
	a, err = f.leaseLocked(req)
	f.mu.Unlock()
	if err != nil {
		return a, err
	}
	err = ctx.Err()
	if f.OnPlug != nil && err == nil {
		err = f.OnPlug(&a)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		delete(f.attached, k)
		return a, err
	}
	a.Phase = vnic.PhaseReady
	f.attached[k] = a
	return a, nil
}

// complete checks a request as the daemon does.
func (f *Fake) complete(req vnic.Request) (vnic.Request, error) {
	n, err := f.network(req.Network)
	if err != nil {
		return req, err
	}
	if req.Manager != "cni" && req.Manager != "docker" {
		return req, fmt.Errorf("manager %q: %w", req.Manager, vnic.ErrForbidden)
	}
	req.Network, req.VM = n.Name, "vm1"
	req, err = req.Complete()
	req.VM = ""
	return req, err
}

// compare is the daemon's, in short.
func compare(old vnic.Attachment, req vnic.Request) error {
	o := old.Request
	leased := func(a netip.Addr) bool {
		return slices.ContainsFunc(old.Leases, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	same := o.Network == req.Network && o.Netns == req.Netns && o.Queues == req.Queues && o.NoDefaultRoute == req.NoDefaultRoute &&
		o.Handover == req.Handover && o.Bandwidth == req.Bandwidth && o.Manager == req.Manager && slices.Equal(o.Routes, req.Routes) &&
		(req.MAC.IsZero() || req.MAC == old.MAC) && (req.MTU == 0 || req.MTU == old.MTU) &&
		(len(req.Ports) == 0 || slices.Equal(o.Ports, req.Ports))
	for _, a := range req.Addresses {
		same = same && leased(a)
	}
	if !same {
		return fmt.Errorf("attachment %s of this pod differs; detach it first: %w", old.ID, vnic.ErrConflict)
	}
	return nil
}

// leaseLocked makes an attachment with all that it holds, and records it.
func (f *Fake) leaseLocked(req vnic.Request) (vnic.Attachment, error) {
	n, _ := f.network(req.Network)
	a := vnic.Attachment{ID: vnic.NewID(), Request: req, Phase: vnic.PhaseLeased, MAC: req.MAC, MTU: req.MTU, GuestPCI: "0000:02:01.0"}
	switch {
	case len(f.attached) >= f.Slots:
		return a, &vnic.NoSlotError{VM: "vm1", Used: len(f.attached), Total: f.Slots}
	case len(f.attached)+len(f.reserved) >= f.Quota:
		return a, fmt.Errorf("quota of %d attachments and reservations: %w", f.Quota, vnic.ErrForbidden)
	case a.MTU > n.MTU:
		return a, fmt.Errorf("mtu %d is larger than the network's %d: %w", a.MTU, n.MTU, vnic.ErrInvalid)
	case a.MTU == 0:
		a.MTU = n.MTU
	}
	if a.MAC.IsZero() { // as if from a pool, whose vNICs have ids and MACs of their own
		a.MAC, a.Device = vnic.NewMAC(), vnic.NewID()
	}
	for _, o := range f.attached {
		if o.MAC == a.MAC {
			return a, fmt.Errorf("mac %s: %w", a.MAC, vnic.ErrAddressTaken)
		}
	}
	if err := f.portsFreeLocked(key(req.Pod, req.Interface), req.Ports); err != nil {
		return a, err
	}
	for _, w := range req.Addresses {
		if _, ok := n.Subnet(w); !ok {
			return a, fmt.Errorf("address %s is not in %v: %w", w, n.Subnets, vnic.ErrAddressOutside)
		}
	}
	for i, subnet := range n.Subnets {
		var want netip.Addr
		for _, w := range req.Addresses {
			if subnet.Contains(w) {
				want = w
			}
		}
		if req.Exact && !want.IsValid() {
			continue
		}
		addr, err := f.pickLocked(n, i, want, req.Manager == "docker")
		if err != nil {
			return a, err
		}
		a.Leases = append(a.Leases, netip.PrefixFrom(addr, subnet.Bits()))
		a.Gateways = append(a.Gateways, n.Gateways[i])
	}
	f.reserved = slices.DeleteFunc(f.reserved, func(r vnic.Reservation) bool {
		return r.Network == n.Name && slices.Contains(req.Addresses, r.Address)
	})
	f.attached[key(req.Pod, req.Interface)] = a
	return a, nil
}

// portsFreeLocked checks what an attachment wants to publish against all others.
func (f *Fake) portsFreeLocked(k vnic.Key, ports []vnic.PortMapping) error {
	for _, p := range ports {
		if p.HostPort < 1024 {
			return fmt.Errorf("publish %s: %w", p, vnic.ErrForbidden)
		}
		for o, a := range f.attached {
			if o != k && slices.ContainsFunc(a.Request.Ports, p.Overlaps) {
				return fmt.Errorf("publish %s: attachment %s has it: %w", p, a.ID, vnic.ErrPortTaken)
			}
		}
	}
	return nil
}

// lock waits for other calls on a key.
func (f *Fake) lock(ctx context.Context, k vnic.Key) (unlock func(), err error) {
	for {
		f.mu.Lock()
		ch, taken := f.busy[k]
		if !taken {
			ch = make(chan struct{})
			f.busy[k] = ch
		}
		f.mu.Unlock()
		if !taken {
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.busy, k)
				close(ch)
			}, nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Seed makes an attachment as the daemon's API would, beside all checks, and
// returns it completed.
func (f *Fake) Seed(a vnic.Attachment) vnic.Attachment {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.ID == "" {
		a.ID = vnic.NewID()
	}
	if a.Phase == "" {
		a.Phase = vnic.PhaseReady
	}
	f.attached[key(a.Request.Pod, a.Request.Interface)] = a
	return a
}
