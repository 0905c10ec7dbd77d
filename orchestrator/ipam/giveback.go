package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// dropAtOnce bounds how many addresses one transaction takes out of the queue,
// with three operations each.
const dropAtOnce = 24

// GiveBack gives back the hypervisor's blocks of a network that nothing is leased
// from and in which no address is in quarantine, for others to claim, and returns
// how many. It is to be called now and then, and does nothing when the store is
// not shared. Each block has a transaction of its own, of some 20 operations.
func (p *Pool) GiveBack(ctx context.Context, s store.Store, n vnic.Network) (int, error) {
	if p.hypervisor == "" {
		return 0, nil
	}
	count := 0
	for _, subnet := range n.Subnets {
		c, err := p.giveBackBlocks(ctx, s, newGrid(n.Name, subnet))
		count += c
		if err != nil {
			return count, fmt.Errorf("give back blocks of network %s: %w", n.Name, err)
		}
	}
	return count, nil
}

// giveBackBlocks is GiveBack for one subnet. It also takes out of the queue what is
// in no block of the hypervisor's.
func (p *Pool) giveBackBlocks(ctx context.Context, s store.Store, g grid) (count int, err error) {
	var own map[netip.Addr]bool // by a block's start, whether it is idle
	var queue []queued
	err = s.View(ctx, func(tx store.ReadTx) (err error) {
		if own, err = p.ownBlocks(tx, g); err != nil {
			return err
		}
		queue, err = g.queue(tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	for start, idle := range own {
		if !idle {
			continue
		}
		gone := false
		_, err := s.Update(ctx, func(tx store.Tx) (err error) {
			gone, err = p.giveBackBlock(tx, g, start)
			return err
		})
		if err != nil {
			return count, err
		}
		if gone {
			delete(own, start)
			count++
		}
	}
	return count, g.dropOthers(ctx, s, queue, own)
}

// ownBlocks returns the starts of the blocks that the hypervisor has claimed, or
// believes to have, and which of them are idle.
func (p *Pool) ownBlocks(tx store.ReadTx, g grid) (map[netip.Addr]bool, error) {
	items, err := tx.Scan(inFamily(nextPrefix, g.network, g.pool.Addr()), 0)
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr]bool{}
	for _, it := range items {
		start, err := startOf(it.Key)
		if err != nil {
			return nil, err
		}
		index, _, ok := g.find(start)
		if !ok {
			own[start] = true // the network had another pool
			continue
		}
		b, err := g.load(tx, index)
		if err != nil {
			return nil, err
		}
		own[start] = p.idle(b)
	}
	return own, nil
}

// idle reports whether a block that the hypervisor believes to have can go.
func (p *Pool) idle(b block) bool {
	return b.Hypervisor != p.hypervisor || b.Used == 0 && time.Since(b.Freed) >= p.quarantine
}

// giveBackBlock gives back a block, unless it is no longer idle.
func (p *Pool) giveBackBlock(tx store.Tx, g grid, start netip.Addr) (gone bool, err error) {
	index, _, ok := g.find(start)
	if ok {
		b, err := g.load(tx, index)
		if err != nil || !p.idle(b) {
			return false, err
		}
		if b.Hypervisor == p.hypervisor {
			if err := g.disown(tx, index, b); err != nil {
				return false, err
			}
		}
	}
	k := nextKey(g.network, start)
	it, err := tx.Get(k)
	if err != nil {
		return false, err
	}
	if a, err := netip.ParseAddr(string(it.Value)); err == nil {
		if in, _, found := g.find(a); found == ok && in == index {
			if err := tx.Delete(k); err != nil {
				return false, err
			}
		}
	}
	return true, tx.Delete(ownBlockKey(g.network, start))
}

// queue returns the hypervisor's queue.
func (g grid) queue(tx store.ReadTx) ([]queued, error) {
	items, err := tx.Scan(queueOf(g.network, g.pool.Addr()), 0)
	if err != nil {
		return nil, err
	}
	list := make([]queued, len(items))
	for i, it := range items {
		if err := decode(it, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// dropOthers takes out of the queue those of the list that are in no block of own.
func (g grid) dropOthers(ctx context.Context, s store.Store, list []queued, own map[netip.Addr]bool) error {
	var drop []queued
	for _, q := range list {
		index, _, ok := g.find(q.Address)
		if ok {
			_, ok = own[g.at(index, 0)]
		}
		if !ok {
			drop = append(drop, q)
		}
	}
	for len(drop) > 0 {
		part := drop[:min(len(drop), dropAtOnce)]
		drop = drop[len(part):]
		_, err := s.Update(ctx, func(tx store.Tx) error {
			for _, q := range part {
				if err := dropQueued(tx, g.network, q); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dropQueued takes an address out of the queue, unless it was queued anew.
func dropQueued(tx store.Tx, network string, q queued) error {
	k := queueKey(network, q.Address, q.Released)
	it, err := tx.Get(freedKey(network, q.Address))
	if err != nil || string(it.Value) != k {
		return err
	}
	if err := tx.Delete(k); err != nil {
		return err
	}
	return tx.Delete(it.Key)
}
