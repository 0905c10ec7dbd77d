package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationMigration moves a running guest with two pods on two networks to
// another QEMU. A TCP connection counts on, nothing changes in the pods but for the
// time that they stand still, and attaches and detaches work on the far side.
func TestIntegrationMigration(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "web", "db")
	needsQMP(ctx, t, s, vm)
	run(ctx, t, s, "network", "create", "green", "--subnet", "10.232.0.0/24")
	web := attach(ctx, t, s, "--pod", "web", "--network", "blue")
	db := attach(ctx, t, s, "--pod", "db", "--network", "green")
	wide := attach(ctx, t, s, "--pod", "db", "--network", "blue", "--ifname", "net1", "--queues", "2", "--mtu", "1400", "--no-default-route")
	before := viewOf(ctx, t, vm, "web") + viewOf(ctx, t, vm, "db")
	count := startTally(ctx, t, s, vm, "web")
	lost := startPing(ctx, s, db.Addr(false))
	count.awaitMore(ctx, t)

	twin := newTwin(ctx, t, vm, "-2")
	told := listenARP(t, s, "bf-blue")
	began := time.Now()
	out := run(ctx, t, s, migrateArgs(twin)...)
	t.Logf("migrated within %s:\n%s", time.Since(began), out)
	count.awaitMore(ctx, t)
	told(ctx, web.MAC, web.Addr(false))
	require.NoError(t, twin.Arrived(ctx))

	assert.Equal(t, before, viewOf(ctx, t, twin.VM, "web")+viewOf(ctx, t, twin.VM, "db"))
	select {
	case <-vm.Done():
	case <-ctx.Done():
		assert.Fail(t, "the old QEMU still runs")
	}
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	assert.ElementsMatch(t, []string{web.ID, db.ID, wide.ID}, settled(ctx, t, s, twin.VM).Store)
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", wide.Addr(false))
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1372", wide.Addr(false))
	assert.NotRegexp(t, `brf[0-9a-f]{10}m`, onHost(ctx, t, s, "ip", "-o", "link"))
	count.check(t)
	t.Log(lost())
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", web.Addr(true))

	run(ctx, t, s, "detach", "--pod", "db") // both of its interfaces
	db = attach(ctx, t, s, "--pod", "db", "--network", "blue")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", db.Addr(false))

	back := newTwin(ctx, t, twin.VM, "-3")
	run(ctx, t, s, migrateArgs(back)...)
	require.NoError(t, back.Arrived(ctx))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	assert.ElementsMatch(t, []string{web.ID, db.ID}, settled(ctx, t, s, back.VM).Store)
	count.awaitMore(ctx, t)
	count.check(t)
	run(ctx, t, s, "detach", "--pod", "web")
	run(ctx, t, s, "detach", "--pod", "db")
	assertNothingLeft(ctx, t, s, back.VM)
}

// TestIntegrationMigrationPool moves a guest with parked vNICs, which attaches take on
// the far side.
func TestIntegrationMigrationPool(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db")
	needsQMP(ctx, t, s, vm)
	run(ctx, t, s, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "2", "--high", "4")
	parked := func(n int) {
		t.Helper()
		require.NoError(t, site.Until(ctx, fmt.Sprint(n, " parked vNICs"), func(ctx context.Context) (bool, error) {
			cl, err := s.Client()
			if err != nil {
				return false, err
			}
			res, err := cl.ListPools(ctx, &brfusev1.ListPoolsRequest{})
			return err == nil && len(res.GetPools()) == 1 && int(res.GetPools()[0].GetParked()) == n, err
		}))
	}
	parked(2)
	web := attach(ctx, t, s, "--pod", "web")
	parked(2)
	twin := newTwin(ctx, t, vm, "-2")
	run(ctx, t, s, migrateArgs(twin)...)
	require.NoError(t, twin.Arrived(ctx))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", web.Addr(false))
	parked(2)
	db := attach(ctx, t, s, "--pod", "db")
	assert.NotEqual(t, "brf"+db.ID, db.Tap, "a parked vNIC has a name of its own")
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", db.Addr(true))
	run(ctx, t, s, "detach", "--pod", "web")
	run(ctx, t, s, "detach", "--pod", "db")
	assert.Contains(t, run(ctx, t, s, "gc", "--dry-run"), "nothing to remove")
	run(ctx, t, s, "pool", "rm", "--vm", "vm1", "--network", "blue")
	assertNothingLeft(ctx, t, s, twin.VM)
}

// needsQMP skips the rest of a test with libvirt, whose domains are not moved.
func needsQMP(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM) {
	t.Helper()
	if vm.Ref().Libvirt == "" {
		return
	}
	fails(ctx, t, s, "unsupported", "virsh migrate", "vm", "migrate", "vm1", "--qmp", s.Dir+"/2.qmp", "--channel", s.Dir+"/2.agent")
	t.Skip("brfuse moves no domains of libvirt")
}

// newTwin starts a QEMU for vm1 to move to.
func newTwin(ctx context.Context, t *testing.T, vm *vmlab.VM, suffix string, extra ...string) *vmlab.Twin {
	t.Helper()
	twin, err := vm.Twin(ctx, suffix, extra...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, twin.Close()) }) //nolint:contextcheck // has to be done when ctx has ended too
	return twin
}

func migrateArgs(twin *vmlab.Twin) []string {
	return append([]string{"vm", "migrate", "vm1", "--timeout", "2m"}, site.Flags(twin.Ref())...)
}

// viewOf returns what a pod sees of its links, addresses, routes and devices.
func viewOf(ctx context.Context, t *testing.T, vm *vmlab.VM, pod string) string {
	t.Helper()
	out := inGuest(ctx, t, vm, pod, "sh", "-c", "ip -o link; ip -o addr; ip route; ip -6 route; ls -l /sys/bus/virtio/drivers/virtio_net")
	// What the kernel says of a new link's state lags behind.
	return strings.NewReplacer("NO-CARRIER,", "", "state UNKNOWN", "state UP", "state DOWN", "state UP").Replace(out)
}

// tally receives the numbers that a pod sends over one TCP connection.
type tally struct {
	mu      sync.Mutex
	numbers []int         // guarded by mu
	pause   time.Duration // guarded by mu; the longest one
	last    time.Time     // guarded by mu
	more    chan struct{} // has room for one: a number came
}

// startTally has a pod count, a few dozen times a second.
func startTally(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, pod string) *tally {
	t.Helper()
	var l net.Listener
	require.NoError(t, s.Net.NS().Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp4", bluePrefix4+"1:7000")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	_, err := vm.Start(ctx, vmlab.Command{Netns: pod, Argv: []string{
		"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done | nc " + bluePrefix4 + "1 7000",
	}})
	require.NoError(t, err)
	conn, err := l.Accept()
	require.NoError(t, err)
	c := &tally{more: make(chan struct{}, 1)}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		for in := bufio.NewScanner(conn); in.Scan(); {
			c.add(in.Text())
		}
	}()
	return c
}

func (c *tally) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := strconv.Atoi(line)
	if err != nil {
		n = -1
	}
	now := time.Now()
	if !c.last.IsZero() {
		c.pause = max(c.pause, now.Sub(c.last))
	}
	c.numbers, c.last = append(c.numbers, n), now
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// awaitMore waits until the pod has counted on.
func (c *tally) awaitMore(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for range 10 {
		select {
		case <-c.more:
		case <-ctx.Done():
			require.Fail(t, "the pod counts no more")
		}
	}
}

// check checks that no number is missing, and prints how long the pod stood still.
func (c *tally) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range c.numbers {
		require.Equal(t, i+1, n)
	}
	t.Logf("%d numbers over one connection, the longest pause was %s", len(c.numbers), c.pause.Round(time.Millisecond))
}

// startPing pings an address ten times a second until the returned function is
// called, which returns what ping says in the end.
func startPing(ctx context.Context, s *site.Site, addr string) func() string {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan string, 1)
	go func() {
		res, err := s.Net.Run(ctx, "timeout", "-s", "INT", "600", "ping", "-i", "0.1", addr)
		done <- fmt.Sprint(res.Stdout, res.Stderr, err)
	}()
	return func() string {
		cancel()
		return summary(<-done)
	}
}

func summary(ping string) string {
	seen, last := 0, 0
	gap := 0
	for line := range strings.Lines(ping) {
		_, rest, ok := strings.Cut(line, "icmp_seq=")
		if !ok {
			continue
		}
		word, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(word)
		if err != nil {
			continue
		}
		seen++
		gap = max(gap, n-last-1)
		last = n
	}
	return fmt.Sprintf("ping ten times a second: %d of %d answered, %d in a row were not", seen, last, gap)
}
