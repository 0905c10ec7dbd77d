package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// releaseAtOnce bounds how many leases, MACs or blocks one transaction releases.
// The most that each costs, when it changes all of the tree, is 20 operations.
const releaseAtOnce = 4

// ReleaseHypervisor releases what a hypervisor holds that is gone for good: its
// addresses, reservations, MACs and blocks, and all keys of [OwnPrefixes] under home,
// where its own keys lie in the shared store. It returns how many addresses it
// released. It is to be called when that hypervisor's daemon surely runs no more;
// it may be repeated, and run by several at once.
func ReleaseHypervisor(ctx context.Context, s store.Store, home, name string) (int, error) {
	r := releaser{name: name, home: home}
	total := 0
	for _, step := range []struct {
		prefix  string
		release func(tx store.Tx, it store.Item) (bool, error)
	}{
		{home + ownerPfx, r.releaseOwned},
		{home + reservedPfx, r.releaseReserved},
		{home + nextPrefix, r.releaseBlock},
	} {
		n, err := drain(ctx, s, step.prefix, step.release)
		total += n
		if err != nil {
			return total, fmt.Errorf("release what hypervisor %s held: %w", name, err)
		}
	}
	_, err := s.Update(ctx, func(tx store.Tx) error {
		for _, prefix := range OwnPrefixes() {
			if err := tx.DeletePrefix(home + prefix); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return total, fmt.Errorf("forget addresses of hypervisor %s: %w", name, err)
	}
	return total, nil
}

// drain deletes all keys of a prefix, each in one transaction with what release
// does for it, and returns for how many that returned true.
func drain(ctx context.Context, s store.Store, prefix string, release func(store.Tx, store.Item) (bool, error)) (int, error) {
	total := 0
	for more := true; more; {
		var n int
		_, err := s.Update(ctx, func(tx store.Tx) error {
			n = 0
			items, err := tx.Scan(prefix, releaseAtOnce)
			if err != nil {
				return err
			}
			for _, it := range items {
				counts, err := release(tx, it)
				if err != nil {
					return err
				}
				if counts {
					n++
				}
				if err := tx.Delete(it.Key); err != nil {
					return err
				}
			}
			more = len(items) == releaseAtOnce
			return nil
		})
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// releaser releases what a key of a hypervisor's own leads to.
type releaser struct{ name, home string }

// releaseOwned releases a lease or a MAC.
func (r releaser) releaseOwned(tx store.Tx, it store.Item) (bool, error) {
	if m, isMAC := macOf(it.Key); isMAC {
		shared, err := tx.Get(macPrefix + m.String())
		if err != nil || !shared.Exists() {
			return false, err
		}
		if rec, err := decodeMAC(shared); err != nil || rec.Hypervisor != r.name {
			return false, err
		}
		return false, tx.Delete(shared.Key)
	}
	k, err := holding(it)
	if err != nil {
		return false, err
	}
	return r.releaseLease(tx, k)
}

func (r releaser) releaseReserved(tx store.Tx, it store.Item) (bool, error) {
	var res vnic.Reservation
	if err := decode(it, &res); err != nil {
		return false, err
	}
	return r.releaseLease(tx, leaseKey(res.Network, res.Address))
}

// releaseLease deletes a lease if it is the hypervisor's.
func (r releaser) releaseLease(tx store.Tx, key string) (bool, error) {
	l, err := get(tx, key)
	if errors.Is(err, errNoLease) {
		return false, nil
	}
	if err != nil || l.Hypervisor != r.name {
		return false, err
	}
	if err := tx.Delete(key); err != nil {
		return false, err
	}
	_, err = newGrid(l.Network, l.Pool).free(tx, l.Address, time.Now())
	return true, err
}

// releaseBlock gives back a block if it is the hypervisor's. A pointer leads to none.
func (r releaser) releaseBlock(tx store.Tx, it store.Item) (bool, error) {
	parts := strings.Split(strings.TrimPrefix(it.Key, r.home+nextPrefix), "/") // NETWORK, FAMILY, START
	if len(parts) != 3 {
		return false, nil
	}
	subnet, err := netip.ParsePrefix(string(it.Value))
	if err != nil {
		return false, fmt.Errorf("decode %s: %w", it.Key, err)
	}
	start, err := startOf(it.Key)
	if err != nil {
		return false, err
	}
	g := newGrid(parts[0], subnet)
	index, _, ok := g.find(start)
	if !ok {
		return false, nil
	}
	b, err := g.load(tx, index)
	if err != nil || b.Hypervisor != r.name {
		return false, err
	}
	return false, g.disown(tx, index, b)
}
