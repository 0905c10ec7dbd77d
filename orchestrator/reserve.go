package orchestrator

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// dockerManager is the manager whose attachments take over reserved addresses.
const dockerManager = "docker"

// MaxPerVM is how many attachments and reserved addresses a VM may have when its
// guest asks for another. The daemon's API is not limited by it.
const MaxPerVM = 1024

// quota returns a [vnic.ErrForbidden] when a guest may ask for no more.
func (o *Orchestrator) quota(tx store.ReadTx, vm string) error {
	keys, err := tx.Scan(keyPrefix+vm+"/", MaxPerVM)
	if err != nil {
		return err
	}
	reserved, err := o.pool.Reservations(tx, vm)
	if err != nil {
		return err
	}
	if n := len(keys) + len(reserved); n >= MaxPerVM {
		return fmt.Errorf("vm %s has %d attachments and reserved addresses, as many as its guest may ask for; detach some: %w", vm, n, vnic.ErrForbidden)
	}
	return nil
}

// MaxPortsPerVM is how many ports of the hypervisor the attachments of a VM may have
// published when its guest asks for another. Each takes descriptors of the daemon's.
const MaxPortsPerVM = 1024

// portQuota returns a [vnic.ErrForbidden] when a guest may not have those ports of
// the hypervisor beside what the VM has.
func portQuota(tx store.ReadTx, req vnic.Request, ports []vnic.PortMapping) error {
	if req.Manager == "" || len(ports) == 0 {
		return nil
	}
	items, err := attachmentItems(tx, req.VM)
	if err != nil {
		return err
	}
	n := len(ports)
	for _, it := range items {
		var r record
		if err := decode(it, &r); err != nil {
			return err
		}
		if n += len(r.Former); r.key() != req.Key {
			n += len(r.Request.Ports) // else it has ports instead
		}
	}
	if n > MaxPortsPerVM {
		return fmt.Errorf("vm %s would have %d published ports, its guest may ask for %d: %w", req.VM, n, MaxPortsPerVM, vnic.ErrForbidden)
	}
	return nil
}

// Reserve keeps an address of a network for a later attachment of a VM: the wanted
// one, or when that is not valid, any of its family. To reserve a certain one
// again is no error. An Attach by Docker in the same VM that wants the address
// takes it over. Errors are those of Attach.
func (o *Orchestrator) Reserve(ctx context.Context, vm, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error) {
	var got netip.Prefix
	if want.IsValid() && (want.Is4In6() || want.Zone() != "") {
		return got, fmt.Errorf("reserve address %s: give a plain IPv4 or IPv6 address: %w", want, vnic.ErrInvalid)
	}
	err := o.update(ctx, func(tx store.Tx) error {
		n, err := o.open(tx, vm, network)
		if err != nil {
			return err
		}
		if err := o.quota(tx, vm); err != nil {
			return err
		}
		got, err = o.pool.Reserve(tx, n, vm, want, ipv6)
		return err
	})
	if err == nil {
		err = failpoint.Hit("reserve.reserved")
	}
	return got, wrap(err, "reserve address for vm %s", vm)
}

// Unreserve gives reserved addresses back. What is not reserved for the VM, such
// as an address that an attachment has taken over, is left alone.
func (o *Orchestrator) Unreserve(ctx context.Context, vm, network string, addrs []netip.Addr) error {
	err := o.update(ctx, func(tx store.Tx) error {
		for _, a := range addrs {
			if err := o.pool.Unreserve(tx, vm, network, a); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap(err, "give back addresses of vm %s", vm)
}

// Reservations returns the addresses that are reserved for a VM, or for all when
// vm is empty, in the order of VM and network.
func (o *Orchestrator) Reservations(ctx context.Context, vm string) ([]vnic.Reservation, error) {
	var list []vnic.Reservation
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = o.pool.Reservations(tx, vm)
		return err
	})
	return list, wrap(err, "list reserved addresses")
}

// update changes the store within its deadline, unless the Orchestrator is closed.
func (o *Orchestrator) update(ctx context.Context, fn func(store.Tx) error) error {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	_, err = o.cfg.Store.Update(ctx, fn)
	return err
}

// unreserved returns [vnic.ErrInUse] when an address of the network is reserved.
func (o *Orchestrator) unreserved(tx store.ReadTx, network string) error {
	list, err := o.pool.Reservations(tx, "")
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Network == network {
			return fmt.Errorf("its address %s is reserved for vm %s; remove the Docker network there that has it, or the vm: %w", r.Address, r.VM, vnic.ErrInUse)
		}
	}
	return nil
}

// reservationsAtOnce bounds what one transaction touches.
const reservationsAtOnce = 16

// dropReservations gives back all that is reserved for a VM which is closed to
// new ones.
func (o *Orchestrator) dropReservations(ctx context.Context, vm string) error {
	list, err := o.Reservations(ctx, vm)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		part := list[:min(len(list), reservationsAtOnce)]
		list = list[len(part):]
		_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
			for _, r := range part {
				if err := o.pool.Unreserve(tx, r.VM, r.Network, r.Address); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("give back reserved addresses: %w", err)
		}
	}
	return nil
}

// strayPromises finds reservations of unknown VMs and published ports of unknown
// attachments.
func (o *Orchestrator) strayPromises(tx store.ReadTx, known map[vnic.ID]string, vms map[string]bool) ([]finding, error) {
	var found []finding
	list, err := o.pool.Reservations(tx, "")
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if !vms[r.VM] {
			found = append(found, finding{
				fmt.Sprintf("address %s of network %s reserved for an unknown vm %s", r.Address, r.Network, r.VM),
				o.unless(vmPrefix+r.VM, func(tx store.Tx) error { return o.pool.Unreserve(tx, r.VM, r.Network, r.Address) }),
			})
		}
	}
	ports, err := tx.Scan(portPrefix, 0)
	if err != nil {
		return nil, err
	}
	for _, it := range ports {
		id := vnic.ID(it.Value)
		if _, ok := known[id]; !ok {
			found = append(found, finding{
				fmt.Sprintf("%s published by no attachment", it.Key),
				o.unless(attachmentKey(id), func(tx store.Tx) error { return tx.Delete(it.Key) }),
			})
		}
	}
	return found, nil
}

// unless returns a function that runs fn when there still is no such key.
func (o *Orchestrator) unless(key string, fn func(store.Tx) error) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
			if it, err := tx.Get(key); err != nil || it.Exists() {
				return err
			}
			return fn(tx)
		})
		return err
	}
}

// unlessVNIC is unless for what an attachment or the vNIC of a pool may own.
func (o *Orchestrator) unlessVNIC(id vnic.ID, fn func(store.Tx) error) func(context.Context) error {
	return o.unless(attachmentKey(id), func(tx store.Tx) error {
		if it, err := tx.Get(pooledKey(id)); err != nil || it.Exists() {
			return err
		}
		return fn(tx)
	})
}
