package ipam

import (
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Adopt makes what is leased in a shared store without a hypervisor's name this
// hypervisor's: what was copied into it from the store of a single one. It is to
// be called once, after the copy and before anything is leased; networks are all
// that are known. It may be repeated.
func (p *Pool) Adopt(ctx context.Context, s store.Store, networks []vnic.Network) error {
	var leases, macs []store.Item
	err := s.View(ctx, func(tx store.ReadTx) (err error) {
		if leases, err = tx.Scan(leasePrefix, 0); err != nil {
			return err
		}
		macs, err = tx.Scan(macPrefix, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("adopt leases: %w", err)
	}
	for part := range slices.Chunk(append(leases, macs...), releaseAtOnce) {
		_, err := s.Update(ctx, func(tx store.Tx) error {
			for _, it := range part {
				if err := p.adopt(tx, it.Key, networks); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("adopt leases: %w", err)
		}
	}
	return nil
}

// adopt is Adopt for one key, of a lease or a MAC.
func (p *Pool) adopt(tx store.Tx, key string, networks []vnic.Network) error {
	it, err := tx.Get(key)
	if err != nil || !it.Exists() {
		return err
	}
	if m, isMAC := macOf(key); isMAC {
		r, err := decodeMAC(it)
		if err != nil || r.Hypervisor != "" {
			return err
		}
		return p.putMAC(tx, r.Owner, m)
	}
	l, err := get(tx, key)
	if err != nil || l.Hypervisor != "" {
		return err
	}
	n := slices.IndexFunc(networks, func(n vnic.Network) bool { return n.Name == l.Network })
	if n < 0 {
		return fmt.Errorf("%s is of an unknown network; run `brfuse gc` on the single hypervisor: %w", key, vnic.ErrUnknownNetwork)
	}
	i, err := subnetFor(networks[n], l.Address, false)
	if err != nil {
		return err
	}
	b, err := p.put(writing(tx, networks[n], i), &l)
	if err != nil || l.VM != "" {
		return err
	}
	return tx.Put(ownerKey(l.Owner.Key, l.Address), b)
}
