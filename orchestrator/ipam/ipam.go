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
// # Several hypervisors
//
// Hypervisors that share a store share the pools. So that they don't meet at one
// pointer, each claims blocks: 64 addresses of a pool, or a sixteenth of one that
// has fewer than 1024, but not less than 4. A /24 has 16 blocks of 16 and serves
// 16 hypervisors before any has to borrow. Pointer and queue are a hypervisor's
// own, and run over its blocks.
//
// A block's record has a bit for each address that is leased. A lease and its bit
// change together, also when another hypervisor leases an address in the block by
// name, so the record tells without a search what is free. Beside the lease and
// the record, which nobody else writes while that does not happen, a lease touches
// nothing that is shared.
//
// A tree of nodes with 16 bits each tells which blocks are closed: claimed, or full
// of addresses leased by name. A claim walks from its root to an open block, at each
// node from a place that depends on the hypervisor's name, and writes the last node:
// at most 16 claims can ever meet there, and the nodes above change only when all
// below is closed or no longer so. There are at most 5 levels.
//
// When all blocks are closed, addresses are borrowed out of others' blocks, from
// their end, while the pointer comes from their beginning. A key for each block that
// has a record and a free address, written when the first is freed or the last
// leased, makes that one scan of a few keys. A pool is exhausted when no block is
// open and no such key is there: when each address is leased. Of a pool of more
// than 2^24 addresses, only that many are leased but by name.
//
// The key of the lease is what makes an address unique: each lease reads it.
// Where records and keys of a hypervisor's own are behind, as those of a network
// that was removed and made anew by another one, they are found to be so and dropped.
//
// An address in somebody else's block is not queued when it is given back: it is
// free for the block's hypervisor, and for others when nothing else is.
//
// The network's own address (the first of the pool), the last one (for IPv4 the
// broadcast address) and the gateway are never leased.
package ipam

import (
	"bytes"
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
	// Hypervisor leased it, and Pool is the subnet that it is of; both are empty when
	// the store is not shared.
	Hypervisor string       `json:"hypervisor,omitempty"`
	Pool       netip.Prefix `json:"pool,omitzero"`
	// Prefix is the address with the length of its pool's prefix, and Gateway the
	// pool's gateway. Both are set by Take only.
	Prefix  netip.Prefix `json:"-"`
	Gateway netip.Addr   `json:"-"`
}

// Options of a [Pool].
type Options struct {
	// Quarantine is how long an address that was given back is left alone. Default:
	// [DefaultQuarantine]; negative: not at all.
	Quarantine time.Duration
	// Hypervisor is the name of the one that leases, when others share the store, of
	// which each then sees keys of its own. Default: the store is not shared.
	Hypervisor string
}

// Pool leases addresses. It has no state of its own, and is safe for
// concurrent use.
type Pool struct {
	quarantine time.Duration
	hypervisor string
}

// New returns a Pool.
func New(opts Options) *Pool {
	if opts.Quarantine == 0 {
		opts.Quarantine = DefaultQuarantine
	}
	return &Pool{quarantine: max(opts.Quarantine, 0), hypervisor: opts.Hypervisor}
}

// Take leases one address of each of the network's subnets: the wanted one of
// that family, else a free one. An owner holds at most one address a family.
// Errors are [vnic.ErrAddressOutside], [vnic.ErrAddressTaken],
// [vnic.ErrPoolExhausted] and those of the store; the transaction is then to be
// abandoned.
func (p *Pool) Take(tx store.Tx, n vnic.Network, owner Owner, want []netip.Addr) ([]Lease, error) {
	for _, a := range want {
		if n.Unaddressed {
			return nil, fmt.Errorf("network %s: address %s: the network is one without addresses; ask for none: %w", n.Name, a, vnic.ErrAddressOutside)
		}
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
		if err := p.record(pl, &l); err != nil {
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
	if p.hypervisor != "" {
		return p.nextShared(p.share(pl))
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
func (p *Pool) record(pl pool, l *Lease) error {
	ok := ownerKey(l.Owner.Key, l.Address)
	unused, err := store.Unused(pl.tx, ok)
	if err != nil {
		return err
	}
	if !unused {
		it, err := pl.tx.Get(ok)
		if err != nil {
			return err
		}
		held, err := holding(it)
		if err != nil {
			return err
		}
		return fmt.Errorf("%s still holds %s; run `brfuse gc`: %w", l.Owner.Key, held, vnic.ErrConflict)
	}
	b, err := p.put(pl, l)
	if err != nil {
		return err
	}
	if p.hypervisor == "" {
		b = []byte(leaseKey(l.Network, l.Address))
	}
	return pl.tx.Put(ok, b)
}

// put writes a lease under its address, and returns what it wrote.
func (p *Pool) put(pl pool, l *Lease) ([]byte, error) {
	if p.hypervisor != "" {
		l.Hypervisor, l.Pool = p.hypervisor, pl.subnet
		if err := pl.grid().lease(pl.tx, l.Address, pl.gateway); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return b, pl.tx.Put(leaseKey(l.Network, l.Address), b)
}

// holding returns the key of the lease that an owner's key leads to: its value, or
// when the store is shared, that of the Lease which its value is. So the leases of
// one hypervisor are found in its own keys.
func holding(it store.Item) (string, error) {
	if !bytes.HasPrefix(it.Value, []byte("{")) {
		return string(it.Value), nil
	}
	var l Lease
	if err := decode(it, &l); err != nil {
		return "", err
	}
	return leaseKey(l.Network, l.Address), nil
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
		k, err := holding(it)
		if err != nil {
			return err
		}
		l, err := get(tx, k)
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

// FreeLease gives back one address. That it isn't leased, or no longer to that
// owner, is no error.
func (p *Pool) FreeLease(tx store.Tx, l Lease) error {
	k := leaseKey(l.Network, l.Address)
	now, err := get(tx, k)
	if errors.Is(err, errNoLease) {
		return nil
	}
	if err != nil || now.Owner != l.Owner {
		return err
	}
	it, err := tx.Get(ownerKey(now.Owner.Key, now.Address))
	if err != nil {
		return err
	}
	held, err := holding(it)
	if err != nil {
		return err
	}
	if held == k {
		if err := tx.Delete(it.Key); err != nil {
			return err
		}
	}
	if err := tx.Delete(k); err != nil {
		return err
	}
	return p.giveBack(tx, now, time.Now())
}

// giveBack makes the address of a lease that is gone free, since that time.
func (p *Pool) giveBack(tx store.Tx, l Lease, since time.Time) error {
	if p.hypervisor != "" {
		whose, err := newGrid(l.Network, l.Pool).free(tx, l.Address, since)
		if err != nil || whose != p.hypervisor {
			return err
		}
	}
	return enqueue(tx, l.Network, l.Address, since)
}

// Leases returns the leases of all networks, reservations among them; when the
// store is shared, those of this hypervisor.
func (p *Pool) Leases(tx store.ReadTx) ([]Lease, error) {
	if p.hypervisor != "" {
		return p.ownLeases(tx)
	}
	items, err := tx.Scan(leasePrefix, 0)
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(items))
	for i, it := range items {
		if err := decode(it, &leases[i]); err != nil {
			return nil, err
		}
	}
	return leases, nil
}

// ownLeases is Leases out of the hypervisor's own keys.
func (p *Pool) ownLeases(tx store.ReadTx) ([]Lease, error) {
	items, err := tx.Scan(ownerPfx, 0)
	if err != nil {
		return nil, err
	}
	var leases []Lease
	for _, it := range items {
		if _, isMAC := macOf(it.Key); isMAC {
			continue
		}
		var l Lease
		if err := decode(it, &l); err != nil {
			return nil, err
		}
		leases = append(leases, l)
	}
	reserved, err := p.Reservations(tx, "")
	for _, r := range reserved {
		leases = append(leases, Lease{Network: r.Network, Address: r.Address, VM: r.VM, Hypervisor: p.hypervisor})
	}
	return leases, err
}

// InUse reports whether an address of the network is leased or reserved, by any
// hypervisor, and describes one such.
func (p *Pool) InUse(tx store.ReadTx, network string) (inUse bool, first string, err error) {
	items, err := tx.Scan(leasePrefix+network+"/", 1)
	if err != nil || len(items) == 0 {
		return false, "", err
	}
	l, err := get(tx, items[0].Key)
	return true, l.Address.String() + " " + l.holder(), err
}

// holder says who has the address.
func (l Lease) holder() string {
	s := "is leased to " + l.Owner.Key.String()
	if l.VM != "" {
		s = "is reserved for vm " + l.VM
	}
	return s + on(l.Hypervisor)
}

// on says which hypervisor something is on.
func on(hypervisor string) string {
	if hypervisor == "" {
		return ""
	}
	return " on hypervisor " + hypervisor
}

// Forget deletes what is known of a network that nothing is leased from; when the
// store is shared, what this hypervisor has of its own, and [Pool.ForgetShared] the
// rest.
func (p *Pool) Forget(tx store.Tx, network string) error {
	for _, prefix := range []string{nextPrefix, queuePrefix, freedPrefix} {
		if err := tx.DeletePrefix(prefix + network + "/"); err != nil {
			return err
		}
	}
	return nil
}

// ForgetShared deletes what is known of a network to all hypervisors, in the
// transaction that removes the network, which nothing is leased from. What others
// have of their own does no harm until they call [Pool.Forget].
func (p *Pool) ForgetShared(tx store.Tx, network string) error {
	for _, prefix := range []string{blockPrefix, sparePrefix, treePrefix} {
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
