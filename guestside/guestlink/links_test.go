package guestlink

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/vnic"
)

func TestAttachThroughTheChannel(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	fake := newFakeAgent("web")
	startGuest(t, socket, fake, nil)
	l, events := newLinks(t, socket, Config{})
	ctx := t.Context()
	m := testMove(1)

	assert.Equal(t, vnic.Event{Kind: vnic.EventAgentUp, VM: "vm1"}, await(t, events, "the agent"))
	info, err := l.Info(ctx, "vm1")
	require.NoError(t, err)
	assert.Equal(t, "v1.2.3", info.Version)
	assert.NotEmpty(t, info.BootID)
	assert.NotEmpty(t, info.Kernel)

	require.NoError(t, l.Prepare(ctx, "vm1", m))
	plugged := make(chan struct{})
	go func() {
		defer close(plugged)
		fake.plug(m.MAC)
	}()
	nic, timings, err := l.Move(ctx, "vm1", m)
	require.NoError(t, err)
	await(t, plugged, "the plug")
	assert.Equal(t, vnic.NIC{ID: m.ID, MAC: m.MAC, PCI: "0000:02:01.0", Driver: "virtio_net", Interface: "eth0", Netns: "web"}, nic)
	assert.Equal(t, []vnic.Timing{{Step: "appear", Duration: time.Millisecond}, {Step: "move", Duration: 2 * time.Millisecond}, {Step: "configure", Duration: 3 * time.Millisecond}}, timings)
	nic, err = l.Configure(ctx, "vm1", m)
	require.NoError(t, err)
	assert.Equal(t, m.Addresses, nic.Addresses)
	assert.Equal(t, "netns=web link eth0 mac 02:00:5e:00:53:01 up=true [10.1.0.2/24 fd00::2/64]", fake.String())

	nics, err := l.NICs(ctx, "vm1")
	require.NoError(t, err)
	assert.Equal(t, []vnic.NIC{nic}, nics)
	_, err = l.Retrieve(ctx, "vm1", m)
	require.NoError(t, err)
	assert.Equal(t, "netns= link brf0000000001 mac 02:00:5e:00:53:01 up=false []", fake.String())
}

func TestErrors(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	fake := newFakeAgent("web")
	startGuest(t, socket, fake, nil)
	l, _ := newLinks(t, socket, Config{Timeouts: Timeouts{Move: 200 * time.Millisecond, NICs: 200 * time.Millisecond}})
	ctx := t.Context()

	m := testMove(1)
	m.Netns = "db"
	err := l.Prepare(ctx, "vm1", m)
	require.EqualError(t, err, "vm vm1: prepare: pod db: unknown pod")
	require.ErrorIs(t, err, vnic.ErrUnknownPod)

	_, _, err = l.Move(ctx, "vm1", testMove(1))
	require.EqualError(t, err, "vm vm1: move: vnic 02:00:5e:00:53:01: vnic did not appear in the guest")
	require.ErrorIs(t, err, vnic.ErrNICMissing)

	m = testMove(1)
	m.Interface = "too-long-for-an-interface"
	_, _, err = l.Move(ctx, "vm1", m)
	require.ErrorIs(t, err, vnic.ErrInvalid)

	_, err = l.NICs(ctx, "vm2")
	require.EqualError(t, err, "vm vm2: unknown vm")
	require.ErrorIs(t, err, vnic.ErrUnknownVM)

	fake.mu.Lock()
	fake.hang = true
	fake.mu.Unlock()
	_, err = l.NICs(ctx, "vm1")
	require.ErrorIs(t, err, vnic.ErrAgentUnavailable)
	require.ErrorContains(t, err, "vm vm1: list vnics: ")

	given, giveUp := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, giveUp)
	_, err = l.NICs(given, "vm1")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, vnic.ErrAgentUnavailable)
}

func TestNoAgent(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	l, _ := newLinks(t, socket, Config{Grace: 300 * time.Millisecond})
	_, err := l.Info(t.Context(), "vm1")
	require.ErrorIs(t, err, vnic.ErrAgentUnavailable)
	require.EqualError(t, err, "vm vm1: guest agent unavailable: no session on "+socket+" for 300ms: connect to "+socket+
		": connect: no such file or directory: is brfuse-agent running in the guest?")

	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = l.Info(short, "vm1")
	require.ErrorIs(t, err, vnic.ErrAgentUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "for 100ms")

	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	_, err = l.Info(given, "vm1")
	require.ErrorIs(t, err, context.Canceled)
}

// A socket that nobody answers on is what a VM without an agent has.
func TestSilentChannel(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	listener, err := net.Listen("unix", socket) //nolint:noctx // a test's
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	l, _ := newLinks(t, socket, Config{Grace: 300 * time.Millisecond})
	_, err = l.Info(t.Context(), "vm1")
	require.EqualError(t, err, "vm vm1: guest agent unavailable: no session on "+socket+" for 300ms: is brfuse-agent running in the guest?")
}

func TestSocketWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may connect to every socket")
	}
	socket := socketIn(t)
	listener, err := net.Listen("unix", socket) //nolint:noctx // a test's
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	require.NoError(t, os.Chmod(socket, 0))
	l, _ := newLinks(t, socket, Config{Grace: 300 * time.Millisecond})
	_, err = l.Info(t.Context(), "vm1")
	require.ErrorContains(t, err, "permission denied: run brfused as a user who may write to that socket")
}

func TestAgentRestart(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	fake := newFakeAgent("web")
	l, events := newLinks(t, socket, Config{Grace: testLimit})
	first := startGuest(t, socket, fake, nil)
	l.Kick("vm1")
	require.Equal(t, vnic.EventAgentUp, await(t, events, "the agent").Kind)
	call := make(chan error, 1)
	go func() {
		_, _, err := l.Move(t.Context(), "vm1", testMove(9)) // is never plugged
		call <- err
	}()
	require.NoError(t, l.Prepare(t.Context(), "vm1", testMove(1)))
	first.end(t)
	require.Equal(t, vnic.EventAgentOff, await(t, events, "the agent's end").Kind)
	err := await(t, call, "the broken call")
	require.ErrorIs(t, err, vnic.ErrAgentUnavailable)
	require.ErrorContains(t, err, "vm vm1: move: guest agent unavailable: ")

	startGuest(t, socket, fake, nil)
	require.NoError(t, l.Prepare(t.Context(), "vm1", testMove(1)))
	require.Equal(t, vnic.EventAgentUp, await(t, events, "the agent again").Kind)
}

func TestReports(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	reports := new(agentd.Reports)
	m := testMove(1)
	reports.Returned(m.ID, m.MAC) // before there is a session
	reports.Returned(m.ID, m.MAC) // once is enough
	startGuest(t, socket, newFakeAgent(), reports)
	_, events := newLinks(t, socket, Config{})
	assert.Equal(t, vnic.EventAgentUp, await(t, events, "the agent").Kind)
	assert.Equal(t, vnic.Event{Kind: vnic.EventReturned, VM: "vm1", ID: m.ID, MAC: m.MAC}, await(t, events, "the report"))
	other := testMove(2)
	reports.Returned("", other.MAC) // of a vNIC that the agent was not told of
	assert.Equal(t, vnic.Event{Kind: vnic.EventReturned, VM: "vm1", MAC: other.MAC}, await(t, events, "the report"))
	assert.Empty(t, events)
}

func TestVMs(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	l, events := newLinks(t, socket, Config{Grace: testLimit})
	ctx := t.Context()
	require.NoError(t, l.AddVM(ctx, vnic.VM{Name: "vm1", Channel: "unix:" + socket}))
	require.ErrorIs(t, l.AddVM(ctx, vnic.VM{Name: "vm1", Channel: "/other"}), vnic.ErrConflict)
	require.ErrorIs(t, l.AddVM(ctx, vnic.VM{Name: "vm2", Channel: "other"}), vnic.ErrInvalid)
	require.ErrorIs(t, l.AddVM(ctx, vnic.VM{Name: "-", Channel: "/other"}), vnic.ErrInvalid)
	require.ErrorIs(t, l.RemoveVM(ctx, "vm2"), vnic.ErrUnknownVM)
	l.Kick("vm2")

	var wg sync.WaitGroup
	wg.Go(func() { // waits for a session when the VM goes
		_, err := l.Info(ctx, "vm1")
		assert.Error(t, err)
	})
	require.NoError(t, l.RemoveVM(ctx, "vm1"))
	wg.Wait()
	startGuest(t, socket, newFakeAgent(), nil)
	require.NoError(t, l.AddVM(ctx, vnic.VM{Name: "vm1", Channel: socket}))
	require.Equal(t, vnic.EventAgentUp, await(t, events, "the agent").Kind)
	require.NoError(t, l.RemoveVM(ctx, "vm1"))
	require.Equal(t, vnic.EventAgentOff, await(t, events, "the agent's end").Kind)
	require.NoError(t, l.Close())
	require.Error(t, l.AddVM(ctx, vnic.VM{Name: "vm1", Channel: socket}))
}

func TestConcurrentCalls(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	fake := newFakeAgent("web")
	startGuest(t, socket, fake, nil)
	l, _ := newLinks(t, socket, Config{})
	var wg sync.WaitGroup
	for i := range byte(200) {
		wg.Go(func() {
			m := testMove(i)
			fake.plug(m.MAC)
			_, _, err := l.Move(t.Context(), "vm1", m)
			if err == nil {
				_, err = l.Configure(t.Context(), "vm1", m)
			}
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	nics, err := l.NICs(t.Context(), "vm1")
	require.NoError(t, err)
	assert.Len(t, nics, 200)
}
