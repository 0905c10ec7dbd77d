package ipam

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Reserve keeps an address for a VM: the wanted one, or when that is not valid,
// any of its family. To reserve a certain one again is no error. Errors are
// [vnic.ErrInvalid] when the network has no subnet of the family, and those of
// [Pool.Take].
func (p *Pool) Reserve(tx store.Tx, n vnic.Network, vm string, want netip.Addr, ipv6 bool) (netip.Prefix, error) {
	i, err := subnetFor(n, want, ipv6)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("network %s: %w", n.Name, err)
	}
	pl := writing(tx, n, i)
	if want.IsValid() {
		if l, found, err := pl.lease(want); err != nil || found && l.VM == vm {
			return netip.PrefixFrom(want, pl.subnet.Bits()), err
		}
	}
	var list []netip.Addr
	if want.IsValid() {
		list = append(list, want)
	}
	a, err := p.choose(pl, list)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("network %s: %w", n.Name, err)
	}
	if err := p.reserve(pl, vnic.Reservation{VM: vm, Network: n.Name, Address: a, Since: time.Now()}); err != nil {
		return netip.Prefix{}, fmt.Errorf("network %s: %w", n.Name, err)
	}
	return netip.PrefixFrom(a, pl.subnet.Bits()), nil
}

// subnetFor returns the index of the subnet that an address is to come from.
func subnetFor(n vnic.Network, want netip.Addr, ipv6 bool) (int, error) {
	i := slices.IndexFunc(n.Subnets, func(s netip.Prefix) bool {
		return want.IsValid() && s.Contains(want) || !want.IsValid() && s.Addr().Is6() == ipv6
	})
	switch {
	case i >= 0:
		return i, nil
	case want.IsValid():
		return 0, fmt.Errorf("address %s is not in %v; choose one in it: %w", want, n.Subnets, vnic.ErrAddressOutside)
	case ipv6:
		return 0, fmt.Errorf("it has no IPv6 subnet, only %v: %w", n.Subnets, vnic.ErrInvalid)
	}
	return 0, fmt.Errorf("it has no IPv4 subnet, only %v: %w", n.Subnets, vnic.ErrInvalid)
}

// reserve writes a reservation under its address and under its VM.
func (p *Pool) reserve(pl pool, r vnic.Reservation) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := p.put(pl, &Lease{Network: r.Network, Address: r.Address, VM: r.VM}); err != nil {
		return err
	}
	return pl.tx.Put(reservedKey(r.VM, r.Network, r.Address), b)
}

// Unreserve gives a reserved address back: it may be leased at once. One that is
// not reserved for the VM is left alone.
func (p *Pool) Unreserve(tx store.Tx, vm, network string, a netip.Addr) error {
	was, l, err := p.unreserve(tx, vm, network, a)
	if err != nil || !was {
		return err
	}
	return p.giveBack(tx, l, time.Now().Add(-p.quarantine))
}

// TakeOver ends the VM's reservations of those addresses, for an attachment of
// the VM that takes them in the same transaction.
func (p *Pool) TakeOver(tx store.Tx, vm, network string, addrs []netip.Addr) error {
	for _, a := range addrs {
		if _, _, err := p.unreserve(tx, vm, network, a); err != nil {
			return err
		}
	}
	return nil
}

// unreserve deletes a reservation, and tells whether there was one, with its lease.
// Its bit stays: an attachment leases the address, or it is given back.
func (p *Pool) unreserve(tx store.Tx, vm, network string, a netip.Addr) (was bool, l Lease, err error) {
	it, err := tx.Get(reservedKey(vm, network, a))
	if err != nil || !it.Exists() {
		return false, l, err
	}
	l = Lease{Network: network, Address: a}
	if p.hypervisor != "" {
		if l, err = get(tx, leaseKey(network, a)); err != nil {
			return false, l, err
		}
	}
	if err := tx.Delete(it.Key); err != nil {
		return false, l, err
	}
	return true, l, tx.Delete(leaseKey(network, a))
}

// Reservations returns what is reserved for a VM, or for all when vm is empty, in
// the order of VM and network.
func (p *Pool) Reservations(tx store.ReadTx, vm string) ([]vnic.Reservation, error) {
	prefix := reservedPfx
	if vm != "" {
		prefix = reservedPrefix(vm)
	}
	items, err := tx.Scan(prefix, 0)
	if err != nil {
		return nil, err
	}
	list := make([]vnic.Reservation, len(items))
	for i, it := range items {
		if err := decode(it, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Room returns [vnic.ErrPoolExhausted] when a subnet of the network has no
// address left.
func (p *Pool) Room(tx store.ReadTx, n vnic.Network) error {
	for i := range n.Subnets {
		pl := reading(tx, n, i)
		room := pl.room
		if p.hypervisor != "" {
			room = p.share(pl).room
		}
		switch ok, err := room(); {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("network %s: %w", n.Name, pl.exhausted())
		}
	}
	return nil
}

// room reports whether an address is left.
func (p pool) room() (bool, error) {
	head, err := p.head()
	if err != nil || head != nil {
		return head != nil, err
	}
	a, err := p.lowest()
	return a.IsValid(), err
}
