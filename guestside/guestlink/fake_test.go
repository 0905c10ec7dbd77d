package guestlink

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/vnic"
)

const testLimit = 20 * time.Second

// fakeAgent is a guest in memory. Its state prints as text.
type fakeAgent struct {
	mu   sync.Mutex // guards what is below
	nics map[vnic.MAC]vnic.NIC
	pods []string
	more chan struct{} // closed and replaced when a vNIC is plugged
	hang bool          // calls wait for their context's end
}

func newFakeAgent(pods ...string) *fakeAgent {
	return &fakeAgent{nics: map[vnic.MAC]vnic.NIC{}, pods: pods, more: make(chan struct{})}
}

func (f *fakeAgent) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, n := range f.nics {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("netns=%s link %s mac %s up=%t %v", n.Netns, n.Interface, n.MAC, n.Up, n.Addresses)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (f *fakeAgent) plug(mac vnic.MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nics[mac] = vnic.NIC{MAC: mac, PCI: "0000:02:01.0", Driver: "virtio_net", Interface: "eth1"}
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fakeAgent) wait(ctx context.Context) error {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (f *fakeAgent) Prepare(ctx context.Context, m vnic.Move) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	if !slices.Contains(f.pods, m.Netns) {
		return fmt.Errorf("pod %s: %w", m.Netns, vnic.ErrUnknownPod)
	}
	return nil
}

func (f *fakeAgent) Attach(ctx context.Context, m vnic.Move) (vnic.NIC, guestside.MoveTimes, error) {
	for {
		f.mu.Lock()
		n, ok := f.nics[m.MAC]
		more := f.more
		if ok {
			n.ID, n.Netns, n.Interface = m.ID, m.Netns, m.Interface
			f.nics[m.MAC] = n
		}
		f.mu.Unlock()
		if ok {
			return n, guestside.MoveTimes{Appear: time.Millisecond, Move: 2 * time.Millisecond, Configure: 3 * time.Millisecond}, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return n, guestside.MoveTimes{}, fmt.Errorf("vnic %s: %w", m.MAC, vnic.ErrNICMissing)
		}
	}
}

func (f *fakeAgent) Configure(_ context.Context, m vnic.Move) (vnic.NIC, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nics[m.MAC]
	n.Up, n.Addresses = true, m.Addresses
	f.nics[m.MAC] = n
	return n, nil
}

func (f *fakeAgent) Release(_ context.Context, m vnic.Move) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.nics[m.MAC]; ok {
		n.Up, n.Addresses = false, nil
		f.nics[m.MAC] = n
	}
	return nil
}

func (f *fakeAgent) Retrieve(_ context.Context, m vnic.Move) (vnic.NIC, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.nics[m.MAC]
	if !ok {
		return n, fmt.Errorf("vnic %s: %w", m.MAC, vnic.ErrNICMissing)
	}
	n.Up, n.Addresses, n.Netns, n.Interface = false, nil, "", m.ID.LinkName()
	f.nics[m.MAC] = n
	return n, nil
}

func (f *fakeAgent) NICs(ctx context.Context) ([]vnic.NIC, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var nics []vnic.NIC
	for _, n := range f.nics {
		nics = append(nics, n)
	}
	return nics, nil
}

func (f *fakeAgent) Check(_ context.Context, m vnic.Move) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nics[m.MAC]; !n.Up {
		return fmt.Errorf("vnic %s: it is down: %w", m.MAC, vnic.ErrDiffers)
	}
	return nil
}

// guest runs agents on the channel of a VM.
type guest struct {
	socket string
	stop   context.CancelFunc
	done   chan error
}

func startGuest(t *testing.T, socket string, a agentd.Agent, r *agentd.Reports) *guest {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	g := &guest{socket: socket, stop: cancel, done: make(chan error, 1)}
	go func() {
		g.done <- agentd.Run(ctx, agentd.Config{
			Agent: a, Channel: "unix:" + socket, Reports: r, Version: "v1.2.3", Silence: time.Second,
		})
	}()
	t.Cleanup(func() { g.end(t) })
	return g
}

func (g *guest) end(t *testing.T) {
	t.Helper()
	if g.stop == nil {
		return
	}
	g.stop()
	g.stop = nil
	require.ErrorIs(t, await(t, g.done, "the agent's end"), context.Canceled)
}

func socketIn(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "agent.sock")
}

// newLinks returns Links with one VM, quick to notice, and its events.
func newLinks(t *testing.T, socket string, cfg Config) (*Links, chan vnic.Event) {
	t.Helper()
	events := make(chan vnic.Event, 100)
	cfg.OnEvent = func(ev vnic.Event) { events <- ev }
	cfg.Heartbeat, cfg.Silence = 50*time.Millisecond, time.Second
	l := New(cfg)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.AddVM(t.Context(), vnic.VM{Name: "vm1", Channel: socket}))
	return l, events
}

func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testLimit):
		require.FailNow(t, "timeout", "waited %s for %s", testLimit, what)
	}
	return v
}

// noLeaks fails the test when a goroutine of the channel outlives it. Call it
// first.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
			if left = workers(); len(left) == 0 {
				return
			}
		}
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

func workers() (left []string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		ours := slices.ContainsFunc([]string{"internal/wire.", "guestside/guestlink.", "guestside/agentd.", "yamux", "ttrpc"},
			func(s string) bool { return strings.Contains(stack, s) })
		if ours && !strings.Contains(stack, "testing.tRunner") {
			left = append(left, stack)
		}
	}
	return left
}

func testMove(last byte) vnic.Move {
	return vnic.Move{
		ID: vnic.ID(fmt.Sprintf("00000000%02x", last)), MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, last},
		Netns: "web", Interface: "eth0", MTU: 1500, Queues: 1,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
		Routes: []vnic.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Destination: netip.MustParsePrefix("10.9.0.0/16")},
		},
	}
}
