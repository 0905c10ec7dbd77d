package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
)

const (
	soakEnv    = "BRFUSE_SOAK" // how many cycles, however long they take
	soakCycles = 2000
	soakTime   = 110 * time.Second // after which no more are begun by default
	soakWarm   = 200               // cycles before the first count: caches and heaps have grown to their size then
)

// counters are what a leak would show in.
type counters struct {
	DaemonFDs, AgentFDs, QEMUFDs             int
	DaemonKiB, AgentKiB, QEMUKiB             int // resident
	DaemonThreads, AgentThreads, QEMUThreads int
	GuestSlabKiB                             int // unreclaimable memory of the guest's kernel
	HostLinks, GuestLinks                    int
	Rules                                    int // lines of nftables
	DatabaseKiB                              int
}

// TestIntegrationSoak attaches and detaches four pods through a pool, over and
// over, and counts before and after.
func TestIntegrationSoak(t *testing.T) {
	pods := podNames(4)
	ctx, s := newSite(t, site.Options{LogLevel: "info"})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", CPUs: 2})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			tellGuest(t, vm)
		}
	})
	makePods(ctx, t, vm, pods)
	require.NoError(t, s.AddVM(ctx, vm))
	setPool(ctx, t, s, 4, 8)
	awaitFull(ctx, t, s, 4)
	agent, err := vm.Find(ctx, "brfuse-agent")
	require.NoError(t, err)

	cycles, limit := soakCycles, soakTime
	if v := os.Getenv(soakEnv); v != "" {
		cycles, err = strconv.Atoi(v)
		require.NoError(t, err, soakEnv)
		limit = 24 * time.Hour
	}
	c := newCalls(s, "vm1")
	soak(ctx, t, c, pods, soakWarm, soakTime)
	awaitFull(ctx, t, s, 4)
	before := countAll(ctx, t, s, vm, agent)
	hits := poolHits(ctx, t, s)
	began := time.Now()
	cycles = soak(ctx, t, c, pods, cycles, limit)
	took := time.Since(began)
	awaitFull(ctx, t, s, 4)
	after := countAll(ctx, t, s, vm, agent)
	hits = poolHits(ctx, t, s) - hits
	line, err := json.Marshal(map[string]any{
		"cycles": cycles, "hits": hits, "cycleMs": milliseconds(took / time.Duration(cycles)), "before": before, "after": after,
	})
	require.NoError(t, err)
	t.Logf("soak: %s", line)

	assert.Equal(t, cycles, hits, "all through the pool")
	assertNoLeak(t, before, after, cycles)
	tr := settled(ctx, t, s, vm)
	assert.Empty(t, tr.Store)
	dropPool(ctx, t, s)
	assertNothingLeft(ctx, t, s, vm)
	assertOnlyNames(ctx, t, s)
}

// soak makes n cycles, shared by the pods, or as many as the time allows, and
// returns their number. Each pod is pinged now and then.
func soak(ctx context.Context, t *testing.T, c *calls, pods []string, n int, limit time.Duration) int {
	t.Helper()
	errs := make([]error, len(pods))
	began := time.Now()
	var made atomic.Int64
	var wg sync.WaitGroup
	for i, pod := range pods {
		wg.Go(func() {
			for cycle := i; cycle < n && errs[i] == nil && time.Since(began) < limit; cycle += len(pods) {
				made.Add(1)
				_, errs[i] = c.attach(ctx, pod)
				if errs[i] == nil && cycle%50 == i {
					errs[i] = c.ping(ctx, pod)
				}
				if errs[i] == nil {
					_, errs[i] = c.detach(ctx, pod)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	return int(made.Load())
}

func poolHits(ctx context.Context, t *testing.T, s *site.Site) int {
	t.Helper()
	n, err := strconv.Atoi(pool(ctx, t, s).Hits)
	require.NoError(t, err)
	return n
}

// countAll looks at all processes and kernels.
func countAll(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, agent *vmlab.GuestProcess) (c counters) {
	t.Helper()
	c.DaemonFDs, c.DaemonKiB, c.DaemonThreads = countProcess(t, s.DaemonPID())
	c.QEMUFDs, c.QEMUKiB, c.QEMUThreads = countProcess(t, vm.PID())
	status, err := vm.Get(ctx, fmt.Sprintf("/proc/%d/status", agent.PID))
	require.NoError(t, err)
	c.AgentKiB, c.AgentThreads = rss(t, string(status)), kib(t, string(status), "Threads:")
	c.AgentFDs = lines(inGuest(ctx, t, vm, "", "ls", fmt.Sprintf("/proc/%d/fd", agent.PID)))
	meminfo, err := vm.Get(ctx, "/proc/meminfo")
	require.NoError(t, err)
	c.GuestSlabKiB = kib(t, string(meminfo), "SUnreclaim:")
	c.HostLinks = lines(onHost(ctx, t, s, "ip", "-o", "link"))
	c.GuestLinks = lines(inGuest(ctx, t, vm, "", "ip", "-o", "link"))
	c.Rules = lines(onHost(ctx, t, s, "nft", "list", "ruleset"))
	info, err := os.Stat(s.State())
	require.NoError(t, err)
	c.DatabaseKiB = int(info.Size() >> 10)
	return c
}

func countProcess(t *testing.T, pid int) (fds, rssKiB, threads int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	status := readFile(t, fmt.Sprintf("/proc/%d/status", pid))
	return len(entries), rss(t, status), kib(t, status, "Threads:")
}

func lines(s string) int { return strings.Count(s, "\n") }

// assertNoLeak compares counters. What a cycle would leak, if it did, is at least
// a descriptor, a link or a rule, or some hundred bytes of memory.
func assertNoLeak(t *testing.T, before, after counters, cycles int) {
	t.Helper()
	const few = 8 // as many threads and descriptors may come and go
	for _, x := range []struct {
		what          string
		before, after int
		slack         int
	}{
		{"descriptors of brfused", before.DaemonFDs, after.DaemonFDs, few},
		{"descriptors of the agent", before.AgentFDs, after.AgentFDs, few},
		{"descriptors of QEMU", before.QEMUFDs, after.QEMUFDs, few},
		{"threads of brfused", before.DaemonThreads, after.DaemonThreads, few},
		{"threads of the agent", before.AgentThreads, after.AgentThreads, few},
		{"KiB of brfused", before.DaemonKiB, after.DaemonKiB, 8<<10 + cycles},
		{"KiB of the agent", before.AgentKiB, after.AgentKiB, 4<<10 + cycles},
		{"KiB of QEMU", before.QEMUKiB, after.QEMUKiB, 24<<10 + 2*cycles},
		{"KiB of the guest's kernel", before.GuestSlabKiB, after.GuestSlabKiB, 4<<10 + 2*cycles},
		{"KiB of the database", before.DatabaseKiB, after.DatabaseKiB, 512},
	} {
		assert.LessOrEqual(t, x.after, x.before+x.slack, "%s: %d before", x.what, x.before)
	}
	// The pool has four to eight vNICs, and each a tap and a link in the guest.
	assert.InDelta(t, before.HostLinks, after.HostLinks, 4)
	assert.InDelta(t, before.GuestLinks, after.GuestLinks, 4)
	assert.Equal(t, before.Rules, after.Rules)
}

// addressBook has the keys that say which addresses of a network were ever leased,
// and since when they are free: as many as the network has, at most.
var addressBook = []string{"ipam/next/", "ipam/queue/", "ipam/freed/"}

// assertOnlyNames ends the daemon and checks that its database has the VM and the
// network and nothing else: no lease of an address or a MAC, no vNIC.
func assertOnlyNames(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	s.KillDaemon()
	db, err := boltstore.Open(s.State())
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	var keys []string
	require.NoError(t, db.View(ctx, func(tx store.ReadTx) error {
		items, err := tx.Scan("", 0)
		for _, it := range items {
			if !slices.ContainsFunc(addressBook, func(prefix string) bool { return strings.HasPrefix(it.Key, prefix) }) {
				keys = append(keys, it.Key)
			}
		}
		return err
	}))
	assert.ElementsMatch(t, []string{"network/blue", "vm/vm1"}, keys)
}
