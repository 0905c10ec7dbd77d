package ipam

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
)

func TestGridSizes(t *testing.T) {
	for _, c := range []struct {
		pool         string
		size, blocks int
		depth        int
	}{
		{"10.0.0.0/30", 4, 1, 1},
		{"10.0.0.0/29", 4, 2, 1},
		{"10.0.0.0/26", 4, 16, 1},
		{"10.0.0.0/25", 8, 16, 1},
		{"10.0.0.0/24", 16, 16, 1},
		{"10.0.0.0/22", 64, 16, 1},
		{"10.0.0.0/21", 64, 32, 2},
		{"10.0.0.0/16", 64, 1024, 3},
		{"10.0.0.0/8", 64, 1 << 18, 5},
		{"fd00::/126", 4, 1, 1},
		{"fd00::/64", 64, 1 << 18, 5},
	} {
		t.Run(c.pool, func(t *testing.T) {
			p := netip.MustParsePrefix(c.pool)
			g := newGrid("blue", p)
			assert.Equal(t, c.size, g.size())
			assert.Equal(t, c.blocks, 1<<(g.cover-g.block))
			assert.Equal(t, c.depth, g.depth())
			rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // to be repeatable
			for range 100 {
				index, place := rnd.Uint32N(uint32(c.blocks)), rnd.IntN(c.size)
				a := g.at(index, place)
				require.True(t, p.Contains(a))
				i, pl, ok := g.find(a)
				require.True(t, ok)
				require.Equal(t, []int{int(index), place}, []int{int(i), pl})
				start, err := startOf(blockKey("blue", g.at(index, 0)))
				require.NoError(t, err)
				require.Equal(t, g.at(index, 0), start)
			}
		})
	}
}

func TestGridCoversTheBeginningOnly(t *testing.T) {
	g := newGrid("blue", netip.MustParsePrefix("fd00::/64"))
	for a, want := range map[string]bool{"fd00::ff:ffff": true, "fd00::100:0": false, "fd00:0:0:1::": false} {
		_, _, ok := g.find(netip.MustParseAddr(a))
		assert.Equal(t, want, ok, a)
	}
	_, _, ok := newGrid("blue", netip.Prefix{}).find(netip.MustParseAddr("10.1.0.1"))
	assert.False(t, ok, "a pool that is not known")
}

// TestTreeOpensEachBlockOnce closes what it opens until nothing is left, and opens
// again just what is reopened. Nothing remains of it when all is open.
func TestTreeOpensEachBlockOnce(t *testing.T) {
	for _, c := range []struct {
		pool   string
		blocks int
	}{{"10.0.0.0/30", 1}, {"10.0.0.0/29", 2}, {"10.0.0.0/24", 16}, {"10.0.0.0/21", 32}, {"10.0.0.0/16", 1024}, {"fd00::/111", 2048}} {
		t.Run(c.pool, func(t *testing.T) {
			g := newGrid("blue", netip.MustParsePrefix(c.pool))
			_, err := memstore.New().Update(t.Context(), func(tx store.Tx) error {
				seen := map[uint32]bool{}
				for range c.blocks {
					i := mustOpen(t, g, tx)
					require.False(t, seen[i])
					seen[i] = true
					require.NoError(t, g.mark(tx, i, true))
				}
				_, ok, err := g.open(tx, "hv1")
				require.NoError(t, err)
				require.False(t, ok)
				for i := range seen {
					require.NoError(t, g.mark(tx, i, false))
					require.Equal(t, i, mustOpen(t, g, tx))
					require.NoError(t, g.mark(tx, i, true))
				}
				for i := range seen {
					require.NoError(t, g.mark(tx, i, false))
				}
				items, err := tx.Scan("", 0)
				assert.Empty(t, items)
				return err
			})
			require.NoError(t, err)
		})
	}
}

func mustOpen(t *testing.T, g grid, tx store.Tx) uint32 {
	t.Helper()
	i, ok, err := g.open(tx, "hv1")
	require.NoError(t, err)
	require.True(t, ok)
	return i
}

// TestDamaged keys are errors that name the key.
func TestDamaged(t *testing.T) {
	pl := netip.MustParsePrefix("10.0.0.0/21")
	g := newGrid("blue", pl)
	for key, c := range map[string]struct{ value, text string }{
		"ipam/tree/blue/4/":          {"zz", `decode ipam/tree/blue/4/: strconv.ParseUint: parsing "zz": invalid syntax`},
		"ipam/tree/blue/4/0":         {"ffff", "ipam/tree/blue/4/0 says that all is claimed, the node above that some is not: damaged"},
		"ipam/tree/blue/4/1":         {"ffff", "ipam/tree/blue/4/1 says that all is claimed, the node above that some is not: damaged"},
		"ipam/block/blue/4/0a000000": {"{", "decode ipam/block/blue/4/0a000000: unexpected end of JSON input"},
		"ipam/spare/blue/4/0a00":     {"", "decode ipam/spare/blue/4/0a00: it ends with no address: damaged"},
		"ipam/spare/blue/4/hello":    {"", "decode ipam/spare/blue/4/hello: encoding/hex: invalid byte: U+0068 'h'"},
	} {
		t.Run(key, func(t *testing.T) {
			_, err := memstore.New().Update(t.Context(), func(tx store.Tx) error {
				require.NoError(t, tx.Put(key, []byte(c.value)))
				var errs []string
				for _, hv := range []string{"hv1", "hv2"} { // begin in both of the tree's halves
					_, _, err := g.open(tx, hv)
					errs = append(errs, text(err))
				}
				_, err := g.load(tx, 0)
				errs = append(errs, text(err))
				_, err = share{pool: pool{rd: tx, network: "blue", subnet: pl}, blocks: g}.spares()
				errs = append(errs, text(err))
				assert.Contains(t, errs, c.text)
				return nil
			})
			require.NoError(t, err)
		})
	}
}

// TestDropQueuedAnew leaves an address in the queue that was queued anew meanwhile.
func TestDropQueuedAnew(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.7")
	_, err := memstore.New().Update(t.Context(), func(tx store.Tx) error {
		old, now := time.Unix(1, 0), time.Unix(2, 0)
		require.NoError(t, enqueue(tx, "blue", a, now))
		require.NoError(t, dropQueued(tx, "blue", queued{a, old}))
		items, err := tx.Scan("", 0)
		require.NoError(t, err)
		require.Len(t, items, 2)
		require.NoError(t, dropQueued(tx, "blue", queued{a, now}))
		items, err = tx.Scan("", 0)
		assert.Empty(t, items)
		return err
	})
	require.NoError(t, err)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
