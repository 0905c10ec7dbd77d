package bench

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// TestMain is the worker of the tests, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == WorkerArg {
		Main(context.Background())
		return
	}
	m.Run()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
}

func newBench(t *testing.T) *Bench {
	t.Helper()
	b := New(t.Context(), Config{Record: filepath.Join(t.TempDir(), "bench.json")})
	t.Cleanup(func() { assert.NoError(t, b.CloseAll(context.Background())) })
	return b
}

func TestOrderCheck(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		name string
		o    Order
		want string // empty: nothing is wrong
	}{
		{"native", Order{ID: "a-1", Topology: Native}, ""},
		{"fused", Order{ID: "a", Topology: Fused}, ""},
		{"nat of the server", Order{ID: "a", Topology: NAT, Own: addr}, ""},
		{"nat of the client", Order{ID: "a", Topology: NAT, Peer: addr}, ""},
		{"no id", Order{Topology: Native}, "bench id"},
		{"id with a path", Order{ID: "../a", Topology: Native}, "bench id"},
		{"long id", Order{ID: strings.Repeat("a", 33), Topology: Native}, "bench id"},
		{"topology", Order{ID: "a", Topology: "macvlan"}, "is none of native, nat and fused"},
		{"nat without addresses", Order{ID: "a", Topology: NAT}, "neither is an IPv4 address"},
		{"nat by IPv6", Order{ID: "a", Topology: NAT, Own: netip.MustParseAddr("fd00::1")}, "neither is an IPv4 address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.o.Check()
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

// TestNative measures over lo, by two agents of one machine.
func TestNative(t *testing.T) {
	server, client := newBench(t), newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at, err := server.Open(ctx, Order{ID: "one", Topology: Native})
	require.NoError(t, err)
	assert.Empty(t, at.Netns)
	_, err = client.Open(ctx, Order{ID: "one", Topology: Native})
	require.NoError(t, err)
	port, err := server.Serve(ctx, "one")
	require.NoError(t, err)
	assert.Equal(t, at.Port, port)
	again, err := server.Serve(ctx, "one")
	require.NoError(t, err, "every call may be repeated")
	assert.Equal(t, port, again)

	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	reached, err := client.Reach(ctx, "one", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), to})
	require.NoError(t, err)
	assert.Equal(t, []netip.AddrPort{to}, reached)

	r, err := client.Run(ctx, "one", to, netload.Spec{Kind: netload.TCPRR, Size: 64, Flows: 1, Duration: 100 * time.Millisecond})
	require.NoError(t, err)
	assert.Positive(t, r.Received)
	assert.NotEmpty(t, r.Latency)
	assert.Positive(t, r.Client.Elapsed)
	assert.Positive(t, r.Server.Elapsed)

	_, err = client.Run(ctx, "one", to, netload.Spec{Kind: "smoke"})
	require.ErrorIs(t, err, vnic.ErrInvalid)
	_, err = client.Run(ctx, "two", to, netload.Spec{Kind: netload.TCPRR, Size: 64})
	require.ErrorContains(t, err, "bench two is not open")
}

func TestOneAtATime(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	first, err := b.Open(ctx, Order{ID: "one", Topology: Native})
	require.NoError(t, err)
	again, err := b.Open(ctx, Order{ID: "one", Topology: Native})
	require.NoError(t, err)
	assert.Equal(t, first, again)
	_, err = b.Open(ctx, Order{ID: "two", Topology: Native})
	require.ErrorIs(t, err, vnic.ErrInUse)
	require.NoError(t, b.Close(ctx, "two"), "there is none")
	require.NoError(t, b.Close(ctx, "one"))
	require.NoError(t, b.Close(ctx, "one"))
	_, err = b.Open(ctx, Order{ID: "two", Topology: Native})
	require.NoError(t, err)
}

// TestCloseEndsALoad that runs, and so does the end of its caller.
func TestCloseEndsALoad(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(b *Bench, cancel context.CancelFunc) error
		want error
	}{
		{"close", func(b *Bench, _ context.CancelFunc) error { return b.Close(context.Background(), "one") }, errEnded},
		{"cancel", func(_ *Bench, cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			at, err := b.Open(ctx, Order{ID: "one", Topology: Native})
			require.NoError(t, err)
			_, err = b.Serve(ctx, "one")
			require.NoError(t, err)
			pid := b.open.worker.pid()
			ended := make(chan error, 1)
			go func() {
				to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port)
				_, err := b.Run(ctx, "one", to, netload.Spec{Kind: netload.TCPRR, Size: 64, Duration: time.Minute})
				ended <- err
			}()
			require.Eventually(t, func() bool { return len(b.open.worker.turn) == 0 }, 10*time.Second, time.Millisecond)
			require.NoError(t, tt.end(b, cancel))
			select {
			case err := <-ended:
				require.ErrorIs(t, err, tt.want)
			case <-time.After(10 * time.Second):
				require.FailNow(t, "the load goes on")
			}
			require.NoError(t, b.CloseAll(context.Background()))
			assert.NoDirExists(t, "/proc/"+strconv.Itoa(pid))
		})
	}
}

func TestWorkerThatDies(t *testing.T) {
	b := New(t.Context(), Config{Record: filepath.Join(t.TempDir(), "r"), Worker: []string{"/bin/sh", "-c", "echo out of luck >&2; exit 3"}})
	_, err := b.Open(t.Context(), Order{ID: "one", Topology: Native})
	require.NoError(t, err)
	_, err = b.Serve(t.Context(), "one")
	require.ErrorIs(t, err, errEnded)
	require.ErrorContains(t, err, "out of luck")
	require.NoError(t, b.CloseAll(t.Context()))
}

// TestIntegrationWorkerEndsWithTheAgent, whose end closes the pipe, and the
// namespace goes with it.
func TestIntegrationWorkerEndsWithTheAgent(t *testing.T) {
	needRoot(t)
	b := newBench(t)
	at, err := b.Open(t.Context(), Order{ID: "one", Topology: Fused})
	require.NoError(t, err)
	ns, err := netnsx.Open(at.Netns)
	require.NoError(t, err)
	home, err := netnsx.Current()
	require.NoError(t, err)
	assert.NotEqual(t, home.ID(), ns.ID())
	require.NoError(t, home.Close())
	require.NoError(t, ns.Close())
	require.NoError(t, b.open.worker.in.Close()) // as the kernel does when the agent is killed
	select {
	case <-b.open.worker.done:
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the worker is still there")
	}
	_, err = netnsx.Open(at.Netns)
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
}

// TestIntegrationNAT opens both ends as two VMs do, in two namespaces that a veth
// pair joins, measures, and finds nothing left; also after a crash.
func TestIntegrationNAT(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b := newVM(t), newVM(t)
	run(t, "ip", "link", "add", "vmA", "netns", a.path, "type", "veth", "peer", "name", "vmB", "netns", b.path)
	a.run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "vmA")
	b.run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "vmB")
	a.run(t, "ip", "link", "set", "vmA", "up")
	b.run(t, "ip", "link", "set", "vmB", "up")
	require.Eventually(t, func() bool { return !strings.Contains(a.state(t), "linkdown") }, 10*time.Second, 10*time.Millisecond)
	before := a.state(t)

	own := netip.MustParseAddr("192.0.2.1")
	var at Place
	a.do(t, func() (err error) { at, err = a.bench.Open(ctx, Order{ID: "one", Topology: NAT, Own: own}); return err })
	assert.Equal(t, []netip.Addr{own}, at.Addresses)
	b.do(t, func() error { _, err := b.bench.Open(ctx, Order{ID: "one", Topology: NAT, Peer: own}); return err })
	_, err := a.bench.Serve(ctx, "one")
	require.NoError(t, err)
	to := netip.AddrPortFrom(own, at.Port)
	reached, err := b.bench.Reach(ctx, "one", []netip.AddrPort{to})
	require.NoError(t, err)
	require.Equal(t, []netip.AddrPort{to}, reached)
	for _, spec := range []netload.Spec{
		{Kind: netload.TCPRR, Size: 64, Duration: 100 * time.Millisecond},
		{Kind: netload.UDPStream, Size: 64, Duration: 100 * time.Millisecond, Reverse: true},
	} {
		r, err := b.bench.Run(ctx, "one", to, spec)
		require.NoError(t, err)
		assert.Positive(t, r.Received)
	}
	assert.Contains(t, a.state(t), "brfuse-bench")
	a.do(t, func() error { return a.bench.Close(ctx, "one") })
	b.do(t, func() error { return b.bench.CloseAll(ctx) })
	assert.Equal(t, before, a.state(t))
	assert.NoFileExists(t, a.bench.cfg.Record)

	// An agent that dies leaves the bridge and the rules; the next one removes them.
	a.do(t, func() error { _, err := a.bench.Open(ctx, Order{ID: "two", Topology: NAT, Own: own}); return err })
	a.bench.place.worker.kill()
	assert.NotEqual(t, before, a.state(t))
	a.do(t, func() error {
		a.bench = New(ctx, Config{Record: a.bench.cfg.Record})
		return nil
	})
	assert.Equal(t, before, a.state(t))
	assert.NoFileExists(t, a.bench.cfg.Record)
}

// vm is a namespace that stands for a VM's first one, with an agent's Bench.
type vm struct {
	ns    *netnsx.NS
	path  string
	bench *Bench
}

func newVM(t *testing.T) *vm {
	t.Helper()
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	v := &vm{ns: ns, path: "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(ns.FD()), bench: New(t.Context(), Config{Record: filepath.Join(t.TempDir(), "run", "bench.json")})}
	t.Cleanup(func() { _ = ns.Do(func() error { return v.bench.CloseAll(context.Background()) }) })
	return v
}

func (v *vm) do(t *testing.T, fn func() error) {
	t.Helper()
	require.NoError(t, v.ns.Do(fn))
}

func (v *vm) run(t *testing.T, argv ...string) string {
	t.Helper()
	return run(t, append([]string{"nsenter", "--net=" + v.path, "--"}, argv...)...)
}

// state is what must be as before.
func (v *vm) state(t *testing.T) string {
	t.Helper()
	return v.run(t, "ip", "-4", "-o", "addr") + v.run(t, "ip", "route") + v.run(t, "nft", "list", "ruleset") +
		v.run(t, "sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.vmA.forwarding")
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	require.NoError(t, err, "%s: %s", strings.Join(argv, " "), out)
	return string(out)
}
