package overlay_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/vnic"
)

// lone returns an overlay with a network in a namespace without an underlay.
func lone(tb testing.TB) (*netnstest.NS, *overlay.Overlay) {
	tb.Helper()
	ns := bridged(tb)
	o := another(tb, ns)
	require.NoError(tb, o.SetNetwork(tb.Context(), blue()))
	return ns, o
}

// many returns remotes from first on, each with one IPv4 address, at a hundred a host.
func many(first, count int) []overlay.Remote {
	remotes := make([]overlay.Remote, count)
	for i := range remotes {
		n := uint32(first + i)
		mac, ip, host := vnic.MAC{2, 1}, [4]byte{}, [4]byte{}
		binary.BigEndian.PutUint32(mac[2:], n)
		binary.BigEndian.PutUint32(ip[:], 10<<24|n)
		binary.BigEndian.PutUint32(host[:], 192<<24|168<<16|n/100+1)
		remotes[i] = overlay.Remote{MAC: mac, Addresses: []netip.Addr{netip.AddrFrom4(ip)}, Host: netip.AddrFrom4(host)}
	}
	return remotes
}

// TestIntegrationManyRemotes programs 100,000 remote pods: as many entries of the VXLAN
// link, of the bridge and of neighbours.
func TestIntegrationManyRemotes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const count = 100_000
	ns, o := lone(t)
	start := time.Now()
	d, err := o.Replace(t.Context(), vni, many(1, count))
	require.NoError(t, err)
	t.Logf("%d remotes programmed in %s", count, time.Since(start).Round(time.Millisecond))
	assert.Equal(t, overlay.Drift{Missing: 3 * count}, d)
	assert.Equal(t, count, strings.Count(ns.Run("ip", "neigh", "show", "nud", "permanent"), "\n"), "thresholds don't count permanent neighbours")
	fdb := ns.Run("bridge", "fdb", "show", "brport", vxlan)
	assert.Equal(t, count, strings.Count(fdb, "dst "))
	assert.Equal(t, count, strings.Count(fdb, "sticky master"))

	start = time.Now()
	d, err = o.Reconcile(t.Context(), vni)
	require.NoError(t, err)
	assert.Zero(t, d)
	t.Logf("compared in %s", time.Since(start).Round(time.Millisecond))

	start = time.Now()
	require.NoError(t, o.RemoveNetwork(t.Context(), vni))
	t.Logf("removed in %s", time.Since(start).Round(time.Millisecond))
	assert.Empty(t, ns.Run("ip", "neigh"))
	t.Logf("%+v", o.Stats())
}

// TestIntegrationChangeIsConstant compares the cost of a change in a large table with that
// in a small one, by turns, so that what else the machine does hits both.
func TestIntegrationChangeIsConstant(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const large, rounds = 20_000, 300
	_, small := lone(t)
	_, big := lone(t)
	_, err := small.Replace(t.Context(), vni, many(1, 10))
	require.NoError(t, err)
	_, err = big.Replace(t.Context(), vni, many(1, large))
	require.NoError(t, err)
	_, err = big.Reconcile(t.Context(), vni) // waits for the monitor's own, if it has lost news
	require.NoError(t, err)
	one := many(large+1, 1)[0]
	median := func(times []time.Duration) time.Duration {
		slices.Sort(times)
		return times[len(times)/2]
	}
	var inSmall, inBig []time.Duration
	for i := range rounds {
		one.Host = netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%2)})
		start := time.Now()
		require.NoError(t, small.Set(t.Context(), vni, one))
		between := time.Now()
		require.NoError(t, big.Set(t.Context(), vni, one))
		inSmall, inBig = append(inSmall, between.Sub(start)), append(inBig, time.Since(between))
	}
	t.Logf("%s among 10, %s among %d", median(inSmall), median(inBig), large)
	assert.Less(t, median(inBig), 5*median(inSmall), "two thousand times as many others cost next to nothing")
}

// BenchmarkReplace programs a whole table into an empty network.
func BenchmarkReplace(b *testing.B) {
	for _, count := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("remotes=%d", count), func(b *testing.B) {
			_, o := lone(b)
			remotes := many(1, count)
			for b.Loop() {
				d, err := o.Replace(b.Context(), vni, remotes)
				require.NoError(b, err)
				require.Equal(b, 3*count, d.Missing)
				b.StopTimer()
				_, err = o.Replace(b.Context(), vni, nil)
				require.NoError(b, err)
				b.StartTimer()
			}
			b.ReportMetric(float64(3*count*b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// BenchmarkSet changes one pod of a table: its cost must not grow with the table.
func BenchmarkSet(b *testing.B) {
	for _, count := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprintf("remotes=%d", count), func(b *testing.B) {
			_, o := lone(b)
			_, err := o.Replace(b.Context(), vni, many(1, count))
			require.NoError(b, err)
			_, err = o.Reconcile(b.Context(), vni) // waits for the monitor's own, if it has lost news
			require.NoError(b, err)
			one := many(count+1, 1)[0]
			for i := 0; b.Loop(); i++ {
				one.Host = netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%2)})
				require.NoError(b, o.Set(b.Context(), vni, one))
			}
		})
	}
}
