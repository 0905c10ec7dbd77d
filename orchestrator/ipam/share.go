package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// What one transaction looks at, at most.
const (
	staleAtOnce = 8 // heads of the queue that are dropped
	spareAtOnce = 8 // blocks that an address is borrowed from
)

// share is a pool that several hypervisors lease from, as one of them sees it.
type share struct {
	pool
	blocks     grid
	hypervisor string
}

func (p pool) grid() grid { return newGrid(p.network, p.subnet) }

func (p *Pool) share(pl pool) share {
	return share{pool: pl, blocks: pl.grid(), hypervisor: p.hypervisor}
}

// nextShared returns a free address: one of the hypervisor's own queue once its
// quarantine is over, else one of its blocks that was never leased, if need be of a
// new block, else one borrowed from another hypervisor's block; else one of its
// own before its time.
func (p *Pool) nextShared(s share) (netip.Addr, error) {
	head, err := s.oldest()
	if err != nil {
		return netip.Addr{}, err
	}
	if head != nil && time.Since(head.Released) >= p.quarantine {
		return head.Address, s.unqueue(head.Address)
	}
	for _, find := range []func() (netip.Addr, error){s.unused, s.claimBlock} {
		if a, err := find(); err != nil || a.IsValid() {
			return a, err
		}
	}
	spares, err := s.spares()
	if err != nil {
		return netip.Addr{}, err
	}
	if a, err := s.borrow(spares, false); err != nil || a.IsValid() {
		return a, err
	}
	if head != nil {
		return head.Address, s.unqueue(head.Address)
	}
	a, err := s.borrow(spares, true)
	if err == nil && !a.IsValid() {
		err = s.exhausted()
	}
	return a, err
}

// oldest is head, after those are dropped that are no longer the hypervisor's to
// lease: leased by another one, or in a block that it has given back.
func (s share) oldest() (*queued, error) {
	for range staleAtOnce {
		q, err := s.head()
		if err != nil || q == nil {
			return nil, err
		}
		index, place, ok := s.blocks.find(q.Address)
		if ok {
			b, err := s.blocks.load(s.rd, index)
			if err != nil {
				return nil, err
			}
			ok = b.Hypervisor == s.hypervisor && !b.has(place)
		}
		if ok {
			if ok, err = s.unleased(q.Address); err != nil || ok {
				return q, err
			}
		}
		if err := s.unqueue(q.Address); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// unleased reports whether an address has no lease, which its block's record says too.
func (s share) unleased(a netip.Addr) (bool, error) {
	it, err := s.rd.Get(leaseKey(s.network, a))
	return !it.Exists(), err
}

// unused returns the lowest address of the hypervisor's present block, from its
// pointer on, that is neither leased nor queued, and moves the pointer on; the
// zero address when there is none, or no such block.
func (s share) unused() (netip.Addr, error) {
	k := nextKey(s.network, s.subnet.Addr())
	it, err := s.rd.Get(k)
	if err != nil || !it.Exists() {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(string(it.Value))
	if err != nil {
		return a, fmt.Errorf("decode %s: %w", k, err)
	}
	index, place, ok := s.blocks.find(a)
	if !ok {
		return netip.Addr{}, s.tx.Delete(k)
	}
	b, err := s.blocks.load(s.rd, index)
	if err != nil {
		return a, err
	}
	for ; place < s.blocks.size() && b.Hypervisor == s.hypervisor; place++ {
		if b.has(place) {
			continue
		}
		a = s.blocks.at(index, place)
		if used, err := s.used(a); err != nil {
			return a, err
		} else if used {
			continue
		}
		if place+1 == s.blocks.size() {
			return a, s.tx.Delete(k)
		}
		return a, s.tx.Put(k, []byte(a.Next().String()))
	}
	return netip.Addr{}, s.tx.Delete(k)
}

// claimBlock is unused with a block that was open; it returns the zero address
// when none is.
func (s share) claimBlock() (netip.Addr, error) {
	index, ok, err := s.blocks.open(s.rd, s.hypervisor)
	if err != nil || !ok {
		return netip.Addr{}, err
	}
	was, err := s.blocks.load(s.rd, index)
	if err != nil {
		return netip.Addr{}, err
	}
	start := s.blocks.at(index, 0)
	if was.closed() {
		return netip.Addr{}, fmt.Errorf("%s is claimed or full, its node says that it is not: %w", blockKey(s.network, start), store.ErrDamaged)
	}
	now := was
	now.Hypervisor, now.Never = s.hypervisor, s.blocks.never(index, s.gateway)
	if err := s.blocks.save(s.tx, index, was, now); err != nil {
		return netip.Addr{}, err
	}
	if err := s.tx.Put(ownBlockKey(s.network, start), []byte(s.subnet.String())); err != nil {
		return netip.Addr{}, err
	}
	if err := s.tx.Put(nextKey(s.network, start), []byte(start.String())); err != nil {
		return netip.Addr{}, err
	}
	return s.unused()
}

// spare is a block that has a free address.
type spare struct {
	index      uint32
	hypervisor string
}

// spares returns some of the blocks with a free address, in random order, so that
// those who borrow at the same time seldom want the same one.
func (s share) spares() ([]spare, error) {
	items, err := s.rd.Scan(inFamily(sparePrefix, s.network, s.subnet.Addr()), spareAtOnce)
	if err != nil {
		return nil, err
	}
	var list []spare
	for _, it := range items {
		start, err := startOf(it.Key)
		if err != nil {
			return nil, err
		}
		if index, _, ok := s.blocks.find(start); ok {
			list = append(list, spare{index, string(it.Value)})
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, nil
}

// borrow returns the last free address of one of the blocks, of this hypervisor's
// own or of others', the zero address when there is none.
func (s share) borrow(list []spare, own bool) (netip.Addr, error) {
	for _, from := range list {
		if (from.hypervisor == s.hypervisor) != own {
			continue
		}
		b, err := s.blocks.load(s.rd, from.index)
		if err != nil {
			return netip.Addr{}, err
		}
		place, ok := b.last()
		if !ok {
			continue
		}
		a := s.blocks.at(from.index, place)
		if ok, err := s.unleased(a); err != nil {
			return netip.Addr{}, err
		} else if ok {
			return a, s.unqueue(a)
		}
	}
	return netip.Addr{}, nil
}

// room reports whether an address is left.
func (s share) room() (bool, error) {
	spares, err := s.spares()
	if err != nil || len(spares) > 0 {
		return len(spares) > 0, err
	}
	_, ok, err := s.blocks.open(s.rd, s.hypervisor)
	return ok, err
}
