// Package ipam leases addresses and MACs to attachments. All it knows is in the
// store and changes within the caller's transaction, so a lease and the
// attachment that holds it come and go together.
//
// # How a free address is found
//
// A network has, for each family, a pointer to the lowest address that was never
// leased, and a queue of those given back, ordered by the time of that. A lease
// takes the head of the queue once its quarantine is over, else what the pointer
// points to, else the head of the queue before its time. So nothing is searched:
// a lease costs a few keys, however large the pool and however many the leases.
// The pointer steps over the gateway and over addresses that were asked for by
// name, each of them once in the life of the network.
//
// # Quarantine
//
// An address that was given back is left alone for a while, so that neighbours
// forget where it was and connections to it end. That is a preference, not a
// promise: when a pool has nothing else, the address that was given back first is
// leased again before its time, for a pod that can't start is worse than a
// neighbour entry that the new owner's announcement corrects. A request that
// names an address gets it at once, for the same reason.
//
// # Reservations
//
// An address can be kept for a VM without an attachment, until one of that VM
// takes it over or it is given back. Such an address was on no wire, so it needs no
// quarantine.
//
// The network's own address (the first of the pool), the last one (for IPv4 the
// broadcast address) and the gateway are never leased.
package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// DefaultQuarantine is how long an address that was given back is left alone.
const DefaultQuarantine = 30 * time.Second

// Owner is who holds a lease.
type Owner struct {
	ID vnic.ID `json:"id"`
	// Key is that of the attachment. The vNIC of a pool has the VM only.
	Key vnic.Key `json:"key"`
}

// String names the attachment, or the pool's vNIC, which has no pod.
func (o Owner) String() string {
	if o.Key.Pod == "" {
		return "vnic " + string(o.ID) + " in a pool of vm " + o.Key.VM
	}
	return o.Key.String()
}

// Lease is an address that is held.
type Lease struct {
	Network string     `json:"network"`
	Address netip.Addr `json:"address"`
	// Owner is empty for a reservation.
	Owner Owner `json:"owner,omitzero"`
	// VM has it reserved; empty for a lease of an attachment.
	VM string `json:"vm,omitempty"`
	// Prefix is the address with the length of its pool's prefix, and Gateway the
	// pool's gateway. Both are set by Take only.
	Prefix  netip.Prefix `json:"-"`
	Gateway netip.Addr   `json:"-"`
}

// Pool leases addresses. It has no state of its own, and is safe for
// concurrent use.
type Pool struct {
	quarantine time.Duration
}

// New returns a Pool with that quarantine; 0 is [DefaultQuarantine], less is none.
func New(quarantine time.Duration) *Pool {
	if quarantine == 0 {
		quarantine = DefaultQuarantine
	}
	return &Pool{quarantine: max(quarantine, 0)}
}

// Take leases one address of each of the network's subnets: the wanted one of
// that family, else a free one. An owner holds at most one address a family.
// Errors are [vnic.ErrAddressOutside], [vnic.ErrAddressTaken],
// [vnic.ErrPoolExhausted] and those of the store; the transaction is then to be
// abandoned.
func (p *Pool) Take(tx store.Tx, n vnic.Network, owner Owner, want []netip.Addr) ([]Lease, error) {
	for _, a := range want {
		if _, ok := n.Subnet(a); !ok {
			return nil, fmt.Errorf("network %s: address %s is not in %v; choose one in it: %w",
				n.Name, a, n.Subnets, vnic.ErrAddressOutside)
		}
	}
	leases := make([]Lease, 0, len(n.Subnets))
	for i := range n.Subnets {
		pl := writing(tx, n, i)
		a, err := p.choose(pl, want)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		l := Lease{
			Network: n.Name, Address: a, Owner: owner,
			Prefix: netip.PrefixFrom(a, pl.subnet.Bits()), Gateway: pl.gateway,
		}
		if err := record(tx, l); err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		leases = append(leases, l)
	}
	return leases, nil
}

func (p *Pool) choose(pl pool, want []netip.Addr) (netip.Addr, error) {
	for _, a := range want {
		if pl.subnet.Contains(a) {
			return a, pl.claim(a)
		}
	}
	return p.next(pl)
}

// next returns a free address by the order in the package's documentation.
func (p *Pool) next(pl pool) (netip.Addr, error) {
	head, err := pl.head()
	if err != nil {
		return netip.Addr{}, err
	}
	if head != nil && time.Since(head.Released) >= p.quarantine {
		return head.Address, pl.unqueue(head.Address)
	}
	a, err := pl.fresh()
	switch {
	case err != nil || a.IsValid():
		return a, err
	case head != nil:
		return head.Address, pl.unqueue(head.Address)
	}
	return netip.Addr{}, pl.exhausted()
}

// record writes a lease under its address and under its owner.
func record(tx store.Tx, l Lease) error {
	ok := ownerKey(l.Owner.Key, l.Address)
	it, err := tx.Get(ok)
	if err != nil {
		return err
	}
	if it.Exists() {
		return fmt.Errorf("%s still holds %s; run `brfuse gc`: %w", l.Owner.Key, it.Value, vnic.ErrConflict)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := tx.Put(leaseKey(l.Network, l.Address), b); err != nil {
		return err
	}
	return tx.Put(ok, []byte(leaseKey(l.Network, l.Address)))
}

// Free gives back all addresses of the owner: they are leased again after the
// quarantine. An owner without any is no error.
func (p *Pool) Free(tx store.Tx, owner Owner) error {
	for _, family := range families {
		it, err := tx.Get(ownerPrefix(owner.Key) + family)
		if err != nil || !it.Exists() {
			if err != nil {
				return err
			}
			continue
		}
		l, err := get(tx, string(it.Value))
		if err != nil {
			return err
		}
		if l.Owner != owner {
			continue
		}
		if err := p.FreeLease(tx, l); err != nil {
			return err
		}
	}
	return nil
}

// FreeLease gives back one address. That it isn't leased is no error.
func (p *Pool) FreeLease(tx store.Tx, l Lease) error {
	k := leaseKey(l.Network, l.Address)
	now, err := get(tx, k)
	if errors.Is(err, errNoLease) {
		return nil
	}
	if err != nil {
		return err
	}
	ok := ownerKey(now.Owner.Key, now.Address)
	if it, err := tx.Get(ok); err != nil {
		return err
	} else if string(it.Value) == k {
		if err := tx.Delete(ok); err != nil {
			return err
		}
	}
	if err := tx.Delete(k); err != nil {
		return err
	}
	return enqueue(tx, now.Network, now.Address, time.Now())
}

// Leases returns all leases of all networks, reservations among them.
func (p *Pool) Leases(tx store.ReadTx) ([]Lease, error) {
	items, err := tx.Scan(leasePrefix, 0)
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(items))
	for i, it := range items {
		if err := json.Unmarshal(it.Value, &leases[i]); err != nil {
			return nil, fmt.Errorf("decode %s: %w", it.Key, err)
		}
	}
	return leases, nil
}

// Forget deletes what is known of a network that nothing is leased from.
func (p *Pool) Forget(tx store.Tx, network string) error {
	for _, prefix := range []string{nextPrefix, queuePrefix, freedPrefix} {
		if err := tx.DeletePrefix(prefix + network + "/"); err != nil {
			return err
		}
	}
	return nil
}

var errNoLease = errors.New("no such lease")

func get(tx store.ReadTx, key string) (Lease, error) {
	var l Lease
	it, err := tx.Get(key)
	if err != nil {
		return l, err
	}
	if !it.Exists() {
		return l, fmt.Errorf("%s: %w", key, errNoLease)
	}
	if err := json.Unmarshal(it.Value, &l); err != nil {
		return l, fmt.Errorf("decode %s: %w", key, err)
	}
	return l, nil
}
