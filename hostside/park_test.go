package hostside

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationParkAndUnpark(t *testing.T) {
	h, y, ns := newTestHost(t)
	before := ns.State()
	for _, queues := range []int{1, 4} {
		p := testPlug()
		p.Queues, p.Parked = queues, true
		got, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
		parked := vnic.Port{VM: "vm", ID: p.ID, MAC: p.MAC, Slot: "rp0/1", Tap: true, Plug: true}
		assert.Equal(t, parked, got)
		requireParked(t, h, ns.Run, p)
		y.mu.Lock()
		y.plugErr = vnic.ErrVMGone // whoever asks the hypervisor fails
		y.mu.Unlock()

		p.Parked = false
		for range 3 {
			require.NoError(t, h.Unpark(t.Context(), p))
			require.NoError(t, h.Unpark(t.Context(), p), "a second time")
			link := ns.Run("ip", "-d", "link", "show", p.ID.TapName())
			for _, want := range []string{"NOARP", "UP", "mtu 1500", "master bf-pods", "alias brfuse vm vm network pods\n", "learning off", "flood off", "vnet_hdr on"} {
				assert.Contains(t, link, want)
			}
			assert.Contains(t, ns.Run("bridge", "fdb"), p.MAC.String()+" dev "+p.ID.TapName()+" master bf-pods static")
			assert.Contains(t, ns.Run("nft", "list", "table", "bridge", "brfuse"), p.MAC.String())
			ports, err := h.Ports(t.Context(), "vm")
			require.NoError(t, err)
			bridged := parked
			bridged.Bridged = true
			assert.Equal(t, []vnic.Port{bridged}, ports)

			require.NoError(t, h.Park(t.Context(), "vm", p.ID))
			require.NoError(t, h.Park(t.Context(), "vm", p.ID), "a second time")
			requireParked(t, h, ns.Run, p)
		}
		y.mu.Lock()
		y.plugErr = nil
		y.mu.Unlock()

		p.Parked = true
		got, err = h.Plug(t.Context(), p)
		require.NoError(t, err, "once more")
		assert.Equal(t, parked, got)
		require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
		require.NoError(t, h.Park(t.Context(), "vm", p.ID), "gone")
		require.ErrorIs(t, h.Unpark(t.Context(), p), vnic.ErrNotFound)
		assert.Equal(t, before, ns.State())
	}
	assert.Equal(t, 2, y.plugs)
}

// requireParked checks that nothing of the vNIC is in force.
func requireParked(t *testing.T, h *Host, run func(string, ...string) string, p vnic.Plug) {
	t.Helper()
	link := run("ip", "-d", "link", "show", p.ID.TapName())
	for _, want := range []string{"NOARP", "state DOWN", "qlen 1000", "alias brfuse vm vm network pods parked", "vnet_hdr on"} {
		assert.Contains(t, link, want)
	}
	for _, no := range []string{"master", ",UP"} {
		assert.NotContains(t, link, no)
	}
	assert.NotContains(t, run("bridge", "fdb"), p.MAC.String())
	assert.NotContains(t, run("nft", "list", "ruleset"), p.ID.TapName())
	assert.NotContains(t, run("tc", "qdisc", "show", "dev", p.ID.TapName()), "tbf")
	ports, err := h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	require.Len(t, ports, 1)
	assert.Equal(t, vnic.Port{VM: "vm", ID: p.ID, MAC: p.MAC, Slot: "rp0/1", Tap: true, Plug: true}, ports[0])
}

// TestIntegrationParkTakesEverythingBack publishes and limits, and has frames wait
// that the VM has not read: the next user of the vNIC gets none of it.
func TestIntegrationParkTakesEverythingBack(t *testing.T) {
	h, y, ns := newTestHost(t)
	p := testPlug()
	p.Ports = []vnic.PortMapping{{Protocol: vnic.UDP, HostPort: 5353, Port: 53}}
	p.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: 8_000_000}, Egress: vnic.Rate{Bits: 8_000_000}}
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	y.mu.Lock()
	tap := y.devices[p.ID].files[0]
	y.mu.Unlock()
	ns.Run("ip", "neigh", "replace", "10.9.0.2", "lladdr", p.MAC.String(), "dev", "bf-pods")
	ping := func() {
		ns.In(func() error {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(s)
			return unix.Sendto(s, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 9, 0, 2}})
		})
	}
	reached := func() bool { // a bridge whose first port comes up takes a while to know
		ping()
		return greeted(t, tap, 100*time.Millisecond)
	}
	for end := time.Now().Add(10 * time.Second); !reached(); {
		require.True(t, time.Now().Before(end), "it does not reach the pod")
	}
	ping()
	<-time.After(50 * time.Millisecond) // it is in the tap, and the VM doesn't read it

	require.True(t, kept(ns, 5353), "the host's port")
	require.NoError(t, h.Park(t.Context(), "vm", p.ID))
	requireParked(t, h, ns.Run, p)
	assert.False(t, kept(ns, 5353), "the host's port")
	ping()
	_, err = tap.Write(make([]byte, 12+60)) // what the VM sends
	require.ErrorIs(t, err, unix.EIO, "nothing leaves")

	p.Ports, p.Bandwidth = nil, vnic.Bandwidth{}
	require.NoError(t, h.Unpark(t.Context(), p))
	assert.False(t, greeted(t, tap, 20*time.Millisecond), "what waited is dropped")
	ns.Run("ip", "neigh", "replace", "10.9.0.2", "lladdr", p.MAC.String(), "dev", "bf-pods")
	for end := time.Now().Add(10 * time.Second); !reached(); {
		require.True(t, time.Now().Before(end), "it does not reach the pod")
	}
	assert.NotContains(t, ns.Run("nft", "list", "ruleset"), "5353")

	require.NoError(t, h.Park(t.Context(), "vm", p.ID))
	p.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.3")}
	require.NoError(t, h.Unpark(t.Context(), p))
	dropped := func() bool { // the host remembers the MAC for the former address
		ping()
		counts, err := h.Dropped(t.Context())
		require.NoError(t, err)
		return counts["destination"] > 0
	}
	for end := time.Now().Add(10 * time.Second); !dropped(); {
		require.True(t, time.Now().Before(end), "it is not dropped")
	}
	assert.False(t, greeted(t, tap, 20*time.Millisecond), "it is the former pod's")
}

// kept tells whether a UDP port of the host can't be bound.
func kept(ns *netnstest.NS, port int) (is bool) {
	ns.In(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		err = unix.Bind(s, &unix.SockaddrInet4{Port: port})
		if is = errors.Is(err, unix.EADDRINUSE); is {
			err = nil
		}
		return err
	})
	return is
}

// greeted tells whether the greeting comes out of a tap within that time.
func greeted(t *testing.T, tap *os.File, within time.Duration) bool {
	t.Helper()
	frame := make([]byte, 4096)
	for end := time.Now().Add(within); ; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		c, err := tap.SyscallConn()
		require.NoError(t, err)
		var n int
		require.NoError(t, c.Control(func(fd uintptr) {
			if n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())); n > 0 {
				n, err = unix.Read(int(fd), frame)
			}
		}))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(t, err)
		if bytes.Contains(frame[:n], []byte("hello")) {
			return true
		}
	}
}

// TestIntegrationParkIsNotTold: what the host does itself is no news, and a parked
// vNIC stays so for the next daemon.
func TestIntegrationParkIsNotTold(t *testing.T) {
	h, y, ns := newTestHost(t)
	p := testPlug()
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, h.Park(t.Context(), "vm", p.ID))
		require.NoError(t, h.Unpark(t.Context(), p))
	}
	require.NoError(t, h.Park(t.Context(), "vm", p.ID))
	noEvent(t, h)

	again := openTestHost(t, ns, y)
	require.NoError(t, again.AddVM(t.Context(), testVM))
	require.NoError(t, again.SetNetwork(t.Context(), testNet))
	requireEvent(t, again, vnic.EventVMUp)
	requireParked(t, again, ns.Run, p)
	require.NoError(t, again.Unpark(t.Context(), p))
	noEvent(t, again)
	ns.Run("ip", "link", "set", p.ID.TapName(), "nomaster")
	requireEvent(t, again, vnic.EventVMUp)
}

func noEvent(t *testing.T, h *Host) {
	t.Helper()
	select {
	case ev := <-h.Events():
		assert.Fail(t, "an event too many", "%v", ev)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestIntegrationUnparkThatFails(t *testing.T) {
	h, _, ns := newTestHost(t)
	other := testPlug()
	other.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.3")}
	other.Ports = []vnic.PortMapping{{Protocol: vnic.TCP, HostPort: 8080, Port: 80}}
	_, err := h.Plug(t.Context(), other)
	require.NoError(t, err)
	p := testPlug()
	p.Parked = true
	_, err = h.Plug(t.Context(), p)
	require.NoError(t, err)
	p.Parked = false
	for _, tt := range []struct {
		name   string
		change func(*vnic.Plug)
		want   error
	}{
		{"port is taken", func(p *vnic.Plug) { p.Ports = other.Ports }, vnic.ErrPortTaken},
		{"mac is taken", func(p *vnic.Plug) { p.MAC = other.MAC }, vnic.ErrAddressTaken},
		{"another mtu", func(p *vnic.Plug) { p.MTU = 1400 }, vnic.ErrNotFound},
		{"no tap", func(p *vnic.Plug) { p.ID = vnic.NewID() }, vnic.ErrNotFound},
		{"unknown vm", func(p *vnic.Plug) { p.VM = "other" }, vnic.ErrUnknownVM},
		{"unknown network", func(p *vnic.Plug) { p.Network = "other" }, vnic.ErrUnknownNetwork},
		{"bridge is gone", func(*vnic.Plug) { ns.Run("ip", "link", "delete", "bf-pods") }, vnic.ErrUnknownNetwork},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := p
			tt.change(&bad)
			require.ErrorIs(t, h.Unpark(t.Context(), bad), tt.want)
			link := ns.Run("ip", "link", "show", p.ID.TapName())
			assert.Contains(t, link, "parked")
			assert.NotContains(t, link, ",UP")
			assert.NotContains(t, link, "master")
			assert.NotContains(t, ns.Run("nft", "list", "ruleset"), p.ID.TapName())
			assert.Len(t, h.guard.Ports(), 1, "only the other's")
		})
	}
	require.ErrorIs(t, h.Park(t.Context(), "other", p.ID), vnic.ErrUnknownVM)
	require.ErrorIs(t, h.Park(t.Context(), "vm", "x"), vnic.ErrInvalid)

	require.NoError(t, h.SetNetwork(t.Context(), testNet))
	require.NoError(t, h.Unpark(t.Context(), p))
	p.Ports = other.Ports
	require.ErrorIs(t, h.Unpark(t.Context(), p), vnic.ErrPortTaken)
	assert.Contains(t, ns.Run("ip", "link", "show", p.ID.TapName()), "master bf-pods", "one that was in use stays so")
}

// TestIntegrationParkAndUnplugAtOnce ends with nothing, whoever comes first.
func TestIntegrationParkAndUnplugAtOnce(t *testing.T) {
	h, _, ns := newTestHost(t)
	before := ns.State()
	for range 10 {
		p := testPlug()
		_, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
		errs := make([]error, 4)
		var wg sync.WaitGroup
		wg.Go(func() { errs[0] = h.Park(t.Context(), "vm", p.ID) })
		wg.Go(func() { errs[1] = h.Unplug(t.Context(), "vm", p.ID) })
		wg.Go(func() { errs[2] = h.Unpark(t.Context(), p) })
		wg.Go(func() { errs[3] = h.Park(t.Context(), "vm", p.ID) })
		wg.Wait()
		for _, err := range slices.Delete(errs, 2, 3) {
			require.NoError(t, err)
		}
		if errs[2] != nil {
			require.ErrorIs(t, errs[2], vnic.ErrNotFound)
		}
		assert.Equal(t, before, ns.State())
		assert.Empty(t, h.guard.Ports())
	}
}

// TestLinkWatchKnowsParkedTaps: the news of a tap that the host parks may be read
// when the host is done with it.
func TestLinkWatchKnowsParkedTaps(t *testing.T) {
	id := vnic.NewID()
	for _, tt := range []struct {
		name, alias string
		lost        bool
	}{
		{"parked", port.Alias{VM: "vm", Network: "pods", Parked: true}.String(), false},
		{"by someone else", port.Alias{VM: "vm", Network: "pods"}.String(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &linkWatch{host: &Host{}, ports: map[vnic.ID]string{id: "vm"}}
			lost := w.lost(rtnl.Update{Changes: []rtnl.LinkChange{{Link: rtnl.Link{Name: id.TapName(), Alias: tt.alias}}}})
			assert.Equal(t, tt.lost, len(lost) > 0)
			assert.Empty(t, w.ports)
		})
	}
}
