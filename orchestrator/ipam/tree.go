package ipam

import (
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// treeBits is how many bits of an index a node of the tree decides: it has 16
// children, and its key a hexadecimal digit for each node above it.
const treeBits = 4

// depth is how many nodes are above a block.
func (g grid) depth() int { return max(1, (g.cover-g.block+treeBits-1)/treeBits) }

// children is how many a node of that level has; the root's is 0.
func (g grid) children(level int) int {
	if level > 0 {
		return 1 << treeBits
	}
	return 1 << (g.cover - g.block - treeBits*(g.depth()-1))
}

// full is the value of a node of that level all of whose children are closed.
func (g grid) full(level int) uint64 { return 1<<g.children(level) - 1 }

// nodeKey returns the key of the node of that level above a block.
func (g grid) nodeKey(index uint32, level int) string {
	digits := fmt.Sprintf("%08x", index)[8-g.depth():]
	return inFamily(treePrefix, g.network, g.pool.Addr()) + digits[:level]
}

// child returns which child of the node of that level a block is under.
func (g grid) child(index uint32, level int) int {
	return int(index>>(treeBits*(g.depth()-1-level))) & (1<<treeBits - 1)
}

func node(rd store.ReadTx, key string) (uint64, error) {
	it, err := rd.Get(key)
	if err != nil || !it.Exists() {
		return 0, err
	}
	n, err := strconv.ParseUint(string(it.Value), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("decode %s: %w", key, err)
	}
	return n, nil
}

// mark writes that a block is closed or not, in its node, and in those above where
// that makes all children of one closed, or no longer all.
func (g grid) mark(tx store.Tx, index uint32, closed bool) error {
	for level := g.depth() - 1; level >= 0; level-- {
		k := g.nodeKey(index, level)
		was, err := node(tx, k)
		if err != nil {
			return err
		}
		now := was &^ (1 << g.child(index, level))
		if closed {
			now = was | 1<<g.child(index, level)
		}
		if now == 0 {
			err = tx.Delete(k)
		} else {
			err = tx.Put(k, []byte(strconv.FormatUint(now, 16)))
		}
		if err != nil {
			return err
		}
		closed = now == g.full(level)
		if closed == (was == g.full(level)) {
			return nil
		}
	}
	return nil
}

// open returns a block that is not closed, for a hypervisor of that name; false
// when all are.
func (g grid) open(rd store.ReadTx, hypervisor string) (index uint32, ok bool, err error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(hypervisor + "/" + g.network)) // it never fails
	begin := h.Sum32()
	for level := range g.depth() {
		k := g.nodeKey(index, level)
		n, err := node(rd, k)
		switch {
		case err != nil:
			return 0, false, err
		case n == g.full(level) && level == 0:
			return 0, false, nil
		case n == g.full(level):
			return 0, false, fmt.Errorf("%s says that all is claimed, the node above that some is not: %w", k, store.ErrDamaged)
		}
		c := g.child(begin, level) % g.children(level)
		for n>>c&1 != 0 {
			c = (c + 1) % g.children(level)
		}
		index |= uint32(c) << (treeBits * (g.depth() - 1 - level)) //nolint:gosec // less than 16
	}
	return index, true, nil
}
