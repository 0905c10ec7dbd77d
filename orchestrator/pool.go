package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// SetPool has vNICs of a network kept plugged in a VM, for attaches to take and
// for detaches to park; or changes how many. It returns before they are plugged.
// Errors are [vnic.ErrInvalid], [vnic.ErrUnknownVM] and [vnic.ErrUnknownNetwork].
func (o *Orchestrator) SetPool(ctx context.Context, p vnic.Pool) error {
	p, err := p.Complete()
	if err != nil {
		return fmt.Errorf("set pool: %w", err)
	}
	k := poolID{p.VM, p.Network}
	err = o.update(ctx, func(tx store.Tx) error {
		n, err := o.open(tx, p.VM, p.Network)
		if err != nil {
			return err
		}
		return save(tx, poolPrefix+k.String(), poolRecord{Pool: p, MTU: n.MTU})
	})
	if err != nil {
		return fmt.Errorf("set pool %s: %w", k, err)
	}
	o.pools.used(k)
	o.tendSoon(k)
	return nil
}

// RemovePool has no more vNICs of a network kept in a VM, and returns when those
// that no attachment has are unplugged. What fails, or is not done when ctx ends, goes
// on in the background. When there is no such pool the error is
// [vnic.ErrUnknownPool].
func (o *Orchestrator) RemovePool(ctx context.Context, vm, network string) error {
	k := poolID{vm, network}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("remove pool %s: %w", k, err)
	}
	defer done()
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		_, found, err := readPool(tx, k)
		if err == nil && !found {
			err = fmt.Errorf("vm %s keeps no vnics of network %s; see `brfuse pool list`: %w", vm, network, vnic.ErrUnknownPool)
		}
		return err
	})
	if err == nil {
		err = o.dropPools(ctx, func(p poolID) bool { return p == k })
	}
	return wrap(err, "remove pool %s", k)
}

// Pools returns all pools as they are now, in the order of their VMs and networks.
func (o *Orchestrator) Pools(ctx context.Context) ([]vnic.PoolStatus, error) {
	var records []poolRecord
	var vnics []pooled
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		if records, err = all[poolRecord](tx, poolPrefix); err != nil {
			return err
		}
		vnics, err = all[pooled](tx, pooledPrefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	list := make([]vnic.PoolStatus, len(records))
	for i, r := range records {
		list[i] = o.pools.status(r.Pool)
		for _, p := range vnics {
			switch {
			case p.pool() != r.id():
			case p.State == parked && p.Session != o.seen.session(p.VM):
				count(&list[i], filling) // until the present agent has seen to it, nobody takes it
			default:
				count(&list[i], p.State)
			}
		}
	}
	slices.SortFunc(list, func(a, b vnic.PoolStatus) int {
		return strings.Compare(a.VM+"/"+a.Network, b.VM+"/"+b.Network)
	})
	return list, nil
}

func count(s *vnic.PoolStatus, state pooledState) {
	switch state {
	case parked:
		s.Parked++
	case filling:
		s.Filling++
	case taken:
		s.InUse++
	case draining:
	}
}

// dropPools removes pools with what they have, for the end of a VM or a network
// that is closed to new ones. What it does not end goes on in the background.
func (o *Orchestrator) dropPools(ctx context.Context, match func(poolID) bool) error {
	var vnics []pooled
	_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		pools, err := all[poolRecord](tx, poolPrefix)
		if err != nil {
			return err
		}
		for _, p := range pools {
			if !match(p.id()) {
				continue
			}
			if err := tx.Delete(poolPrefix + p.id().String()); err != nil {
				return err
			}
		}
		vnics, err = all[pooled](tx, pooledPrefix)
		return err
	})
	if err != nil {
		return err
	}
	o.pools.forget(match)
	vnics = slices.DeleteFunc(vnics, func(p pooled) bool { return p.State == taken || !match(p.pool()) })
	return forEach(vnics, func(p pooled) error {
		err := o.drain(ctx, p.ID)
		if err != nil {
			o.drainSoon(p.ID)
		}
		return err
	})
}
