package hosttest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Networks is that of hostclient.Client. The guest isn't told of bridges.
func (f *Fake) Networks(ctx context.Context) ([]vnic.Network, error) {
	if err := f.begin(ctx, "Networks", ""); err != nil {
		return nil, err
	}
	nets := f.allowed()
	for i, n := range nets {
		nets[i] = vnic.Network{Name: n.Name, Subnets: n.Subnets, Gateways: n.Gateways, MTU: n.MTU}
	}
	return nets, nil
}

func (f *Fake) allowed() []vnic.Network {
	vm := vnic.VM{GuestNetworks: f.Allowed}
	return slices.DeleteFunc(slices.Clone(f.Nets), func(n vnic.Network) bool { return !vm.Allows(n.Name) })
}

// network returns a network that the guest may ask for.
func (f *Fake) network(name string) (vnic.Network, error) {
	nets := f.allowed()
	if name == "" && len(nets) == 1 {
		return nets[0], nil
	}
	if name == "" {
		return vnic.Network{}, fmt.Errorf("none is named, and there are %d: %w", len(nets), vnic.ErrUnknownNetwork)
	}
	for _, n := range nets {
		if n.Name == name {
			return n, nil
		}
	}
	if !(vnic.VM{GuestNetworks: f.Allowed}).Allows(name) {
		return vnic.Network{}, fmt.Errorf("network %s: %w", name, vnic.ErrForbidden)
	}
	return vnic.Network{}, fmt.Errorf("network %s: %w", name, vnic.ErrUnknownNetwork)
}

// pickLocked returns the wanted address of a subnet, if it can be had, or a free
// one. takeOver lets it be a reserved one.
func (f *Fake) pickLocked(n vnic.Network, i int, want netip.Addr, takeOver bool) (netip.Addr, error) {
	switch {
	case !want.IsValid():
		return f.freeLocked(n, i)
	case want == n.Gateways[i]:
		return want, fmt.Errorf("address %s is the gateway: %w", want, vnic.ErrAddressTaken)
	case want == n.Subnets[i].Addr() || want == vnic.LastAddr(n.Subnets[i]):
		return want, fmt.Errorf("address %s is no host address: %w", want, vnic.ErrAddressOutside)
	case f.leasedLocked(n.Name, want), !takeOver && f.reservedLocked(n.Name, want):
		return want, fmt.Errorf("address %s: %w", want, vnic.ErrAddressTaken)
	}
	return want, nil
}

// freeLocked returns the lowest free address of a subnet.
func (f *Fake) freeLocked(n vnic.Network, i int) (netip.Addr, error) {
	last := vnic.LastAddr(n.Subnets[i])
	for a := n.Subnets[i].Addr().Next(); a.Less(last); a = a.Next() {
		if a != n.Gateways[i] && !f.leasedLocked(n.Name, a) && !f.reservedLocked(n.Name, a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("network %s: subnet %s: %w", n.Name, n.Subnets[i], vnic.ErrPoolExhausted)
}

func (f *Fake) leasedLocked(network string, addr netip.Addr) bool {
	for _, a := range f.attached {
		if a.Request.Network == network && slices.ContainsFunc(a.Leases, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return true
		}
	}
	return false
}

func (f *Fake) reservedLocked(network string, addr netip.Addr) bool {
	return slices.ContainsFunc(f.reserved, func(r vnic.Reservation) bool { return r.Network == network && r.Address == addr })
}

// Reserve is that of hostclient.Client.
func (f *Fake) Reserve(ctx context.Context, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error) {
	about := network
	if want.IsValid() {
		about += " " + want.String()
	}
	if err := f.begin(ctx, "Reserve", about); err != nil {
		return netip.Prefix{}, err
	}
	n, err := f.network(network)
	if err != nil {
		return netip.Prefix{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(n.Subnets, func(p netip.Prefix) bool {
		if want.IsValid() {
			return p.Contains(want)
		}
		return p.Addr().Is6() == ipv6
	})
	if i < 0 && !want.IsValid() {
		return netip.Prefix{}, fmt.Errorf("network %s has no subnet of that family, only %v: %w", n.Name, n.Subnets, vnic.ErrInvalid)
	}
	if i < 0 {
		return netip.Prefix{}, fmt.Errorf("reserve an address of network %s: not in %v: %w", n.Name, n.Subnets, vnic.ErrAddressOutside)
	}
	bits := n.Subnets[i].Bits()
	if want.IsValid() && f.reservedLocked(n.Name, want) {
		return netip.PrefixFrom(want, bits), nil // the same VM's
	}
	if len(f.attached)+len(f.reserved) >= f.Quota {
		return netip.Prefix{}, fmt.Errorf("quota of %d attachments and reservations: %w", f.Quota, vnic.ErrForbidden)
	}
	a, err := f.pickLocked(n, i, want, false)
	if err != nil {
		return netip.Prefix{}, err
	}
	f.reserved = append(f.reserved, vnic.Reservation{Network: n.Name, Address: a, Since: time.Now().Truncate(time.Second)})
	return netip.PrefixFrom(a, bits), nil
}

// Unreserve is that of hostclient.Client.
func (f *Fake) Unreserve(ctx context.Context, network string, addrs []netip.Addr) error {
	if err := f.begin(ctx, "Unreserve", fmt.Sprintf("%s %v", network, addrs)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reserved = slices.DeleteFunc(f.reserved, func(r vnic.Reservation) bool {
		return r.Network == network && slices.Contains(addrs, r.Address)
	})
	return nil
}

// Reservations is that of hostclient.Client.
func (f *Fake) Reservations(ctx context.Context) ([]vnic.Reservation, error) {
	if err := f.begin(ctx, "Reservations", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reserved), nil
}
