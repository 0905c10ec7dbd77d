package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Sizes of blocks and of what they cover, in bits of an address.
const (
	maxBlock = 6  // 64 addresses, a bit each in a record
	minBlock = 2  // 4 addresses
	share16  = 4  // a block is no more than a sixteenth of its pool, unless that is less than minBlock
	maxCover = 24 // of a larger pool, what lies beyond is in no block
)

// grid divides a pool into blocks. Their indices are those of their order.
type grid struct {
	network string
	pool    netip.Prefix
	cover   int // how many bits of an address the blocks cover
	block   int // how many of them are those within a block
}

func newGrid(network string, pool netip.Prefix) grid {
	cover := min(pool.Addr().BitLen()-pool.Bits(), maxCover)
	return grid{network: network, pool: pool, cover: cover, block: min(maxBlock, max(minBlock, cover-share16))}
}

// size is how many addresses a block has.
func (g grid) size() int { return 1 << g.block }

// find returns the index of the block that an address is in, and its place there;
// false when it is in none, as where the pool is not known.
func (g grid) find(a netip.Addr) (index uint32, place int, ok bool) {
	if !g.pool.IsValid() || !netip.PrefixFrom(g.pool.Addr(), a.BitLen()-g.cover).Contains(a) {
		return 0, 0, false
	}
	b := a.AsSlice()
	n := binary.BigEndian.Uint32(b[len(b)-4:]) & (1<<g.cover - 1)
	return n >> g.block, int(n) & (g.size() - 1), true
}

// at returns the address at a place of a block.
func (g grid) at(index uint32, place int) netip.Addr {
	b := g.pool.Addr().AsSlice()
	low := b[len(b)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)|index<<g.block|uint32(place)) //nolint:gosec // less than 64
	a, _ := netip.AddrFromSlice(b)
	return a
}

// never returns the bits of a block's addresses that are never leased, and of
// those that it doesn't have.
func (g grid) never(index uint32, gateway netip.Addr) uint64 {
	never := ^uint64(0) << g.size() // of 64 it is 0
	for _, a := range []netip.Addr{g.pool.Addr(), vnic.LastAddr(g.pool), gateway} {
		if i, place, ok := g.find(a); ok && i == index {
			never |= 1 << place
		}
	}
	return never
}

// block is the record of one. That of a block which nobody has claimed and nothing
// is leased from is not stored.
type block struct {
	// Hypervisor has claimed it; empty: nobody has.
	Hypervisor string `json:"hypervisor,omitempty"`
	// Used has the bits of the leased addresses, that of the first the lowest.
	Used uint64 `json:"used,omitempty"`
	// Never has the bits of those that are never leased.
	Never uint64 `json:"never,omitempty"`
	// Freed is the last time since when an address is free; kept while the block is claimed.
	Freed time.Time `json:"freed,omitzero"`
}

func (b block) stored() bool { return b.Hypervisor != "" || b.Used != 0 }

func (b block) full() bool { return b.Used|b.Never == ^uint64(0) }

// spare says that the block is in the list of those with a free address.
func (b block) spare() bool { return b.stored() && !b.full() }

// closed says that the block can't be claimed.
func (b block) closed() bool { return b.Hypervisor != "" || b.full() }

func (b block) has(place int) bool { return (b.Used|b.Never)>>place&1 != 0 }

// load returns a block, an empty one when there is no record.
func (g grid) load(rd store.ReadTx, index uint32) (block, error) {
	var b block
	it, err := rd.Get(blockKey(g.network, g.at(index, 0)))
	if err != nil || !it.Exists() {
		return b, err
	}
	return b, decode(it, &b)
}

// save writes what has become of a block, in its record, the list of blocks with free
// addresses and the tree of closed ones.
func (g grid) save(tx store.Tx, index uint32, was, now block) error {
	start := g.at(index, 0)
	if err := g.putRecord(tx, blockKey(g.network, start), now); err != nil {
		return err
	}
	k := spareKey(g.network, start)
	switch {
	case now.spare() && (!was.spare() || now.Hypervisor != was.Hypervisor):
		if err := tx.Put(k, []byte(now.Hypervisor)); err != nil {
			return err
		}
	case was.spare() && !now.spare():
		if err := tx.Delete(k); err != nil {
			return err
		}
	}
	if now.closed() == was.closed() {
		return nil
	}
	return g.mark(tx, index, now.closed())
}

func (g grid) putRecord(tx store.Tx, key string, b block) error {
	if !b.stored() {
		return tx.Delete(key)
	}
	return encode(tx, key, b)
}

// lease sets the bit of an address.
func (g grid) lease(tx store.Tx, a, gateway netip.Addr) error {
	index, place, ok := g.find(a)
	if !ok {
		return nil
	}
	was, err := g.load(tx, index)
	if err != nil {
		return err
	}
	now := was
	now.Used |= 1 << place
	now.Never = g.never(index, gateway)
	if now.Used == was.Used {
		return nil // as that of a reservation which is taken over
	}
	return g.save(tx, index, was, now)
}

// free clears the bit of an address, which is free since then, and returns whose
// its block is.
func (g grid) free(tx store.Tx, a netip.Addr, since time.Time) (hypervisor string, err error) {
	index, place, ok := g.find(a)
	if !ok {
		return "", nil
	}
	was, err := g.load(tx, index)
	if err != nil || was.Used>>place&1 == 0 {
		return was.Hypervisor, err
	}
	now := was
	now.Used &^= 1 << place
	if since.After(now.Freed) {
		now.Freed = since.Round(0).UTC()
	}
	return now.Hypervisor, g.save(tx, index, was, now)
}

// disown makes a block nobody's. What is leased from it stays so.
func (g grid) disown(tx store.Tx, index uint32, was block) error {
	now := was
	now.Hypervisor = ""
	return g.save(tx, index, was, now)
}

// last returns the last place of a block that is free, and false when none is.
func (b block) last() (place int, ok bool) {
	free := ^(b.Used | b.Never)
	return bits.Len64(free) - 1, free != 0
}
