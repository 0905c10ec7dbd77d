package guestside

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationMove(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	m.MTU = 1400
	l.plug(m, "ens5")
	require.NoError(t, l.Prepare(t.Context(), m))

	nic, times, err := l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, vnic.NIC{ID: m.ID, MAC: m.MAC, Driver: "veth", Interface: "eth0", Netns: m.Netns}, nic)
	assert.Positive(t, times.Move)
	assert.Equal(t, "eth0 down mtu 1400", show(t, pod))
	assert.Empty(t, show(t, l.home))

	again, _, err := l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, nic, again, "the second move has the same answer")
	require.NoError(t, l.Prepare(t.Context(), m), "the name is taken by this very vnic")
}

// The pod has a link of the vNIC's name in the first namespace.
func TestIntegrationMoveOldNameTaken(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	l.plug(m, "eth1")
	addVeth(t, pod, "eth1")
	_, _, err := l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "eth0 down\neth1 down\npeer down", show(t, pod))
	assert.Equal(t, m.MAC, linksOf(t, pod)["eth0"].MAC)
}

func TestIntegrationMoveNameTaken(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	l.plug(m, "ens5")
	addVeth(t, pod, "eth0")

	err := l.Prepare(t.Context(), m)
	require.ErrorIs(t, err, vnic.ErrNameTaken)
	require.ErrorContains(t, err, "has an interface eth0 with mac")

	_, _, err = l.Move(l.deadline(), m)
	require.ErrorIs(t, err, vnic.ErrNameTaken)
	require.ErrorContains(t, err, "choose another name")
	assert.Equal(t, "eth0 down\npeer down", show(t, pod), "nothing of it is in the pod")
	assert.Equal(t, m.ID.LinkName()+" down", show(t, l.home), "it is back")

	m.Interface = "eth1" // and not lost
	_, _, err = l.Move(l.deadline(), m)
	require.NoError(t, err)
}

// An alternative name that clashes with the pod's makes the kernel refuse the
// one message; udev gives such names.
func TestIntegrationMoveBySteps(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	m.MTU = 1300
	l.plug(m, "ens5")
	in(t, l.home, func() error { return addAltName("ens5", "enp0s5") })
	addVeth(t, pod, "lan")
	in(t, pod, func() error { return addAltName("lan", "enp0s5") })
	_, _, err := l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "eth0 down mtu 1300\nlan down\npeer down", show(t, pod))
	assert.Empty(t, show(t, l.home))
}

func TestIntegrationMoveBadMTU(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	m.MTU = 70000
	l.plug(m, "ens5")
	_, _, err := l.Move(l.deadline(), m)
	require.ErrorContains(t, err, "mtu greater than device maximum")
	assert.Empty(t, show(t, pod))
	assert.Equal(t, m.ID.LinkName()+" down", show(t, l.home))
}

func TestIntegrationMoveElsewhere(t *testing.T) {
	l := newLab(t)
	one, two := newNS(t), newNS(t)
	m := order(one)
	l.plug(m, "ens5")
	l.attach(m)

	m.Interface = "net0" // in the pod, under another name
	_, _, err := l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "net0 down", show(t, one))

	m.Netns = ref(two) // in another pod that the agent knows of
	_, _, err = l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "net0 down", show(t, two))
	assert.Empty(t, show(t, one))

	// An agent that knows of nothing finds it in its pod, and searches for it.
	l.records.drop(m.MAC)
	_, _, err = l.Move(l.deadline(), m)
	require.NoError(t, err)
	holdByProcess(t, two)
	l.records.drop(m.MAC)
	m.Netns = ref(one)
	_, _, err = l.Move(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "net0 down", show(t, one))
}

// A pod that dies while its vNIC is awaited is not kept alive by the call: its
// other vNICs come back at once.
func TestIntegrationMovePodDies(t *testing.T) {
	l := newLab(t)
	pod, err := netnsx.New()
	require.NoError(t, err)
	m := order(pod)
	m.Netns = holdByProcess(t, pod)
	in(t, pod, func() error { // a device that tells of the namespace's end
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "inner"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "outer", PeerNamespace: netlink.NsFd(l.host.FD())})
	})
	require.NoError(t, pod.Close())
	require.NoError(t, l.Prepare(t.Context(), m))
	done := make(chan error, 1)
	go func() {
		_, _, err := l.Move(l.deadline(), m)
		done <- err
	}()
	l.awaitWaiter(m.MAC)
	pid, err := strconv.Atoi(m.Netns)
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	assert.Eventually(t, func() bool { return show(t, l.host) == "" }, 5*time.Second, 10*time.Millisecond,
		"the pod's namespace is held by the call")
	l.plug(m, "ens5")
	require.ErrorIs(t, <-done, vnic.ErrUnknownPod)
	assert.Equal(t, "ens5 down", show(t, l.home))
}

// Whoever is root in a pod can make a virtual device with the MAC of another
// pod's vNIC. It is not taken for that vNIC.
func TestIntegrationForgedVNIC(t *testing.T) {
	l := newLab(t)
	l.standIn = ""
	hostile, pod := newNS(t), newNS(t)
	holdByProcess(t, hostile)
	m := order(pod)
	in(t, hostile, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = "forged", m.MAC.HardwareAddr()
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"})
	})
	before := show(t, hostile)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // longer than SearchAfter
	defer cancel()
	_, _, err := l.Move(ctx, m)
	require.ErrorIs(t, err, vnic.ErrNICMissing)
	for _, m.Netns = range []string{m.Netns, ref(hostile)} {
		soon, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := l.Retrieve(soon, m)
		cancel()
		require.ErrorIs(t, err, vnic.ErrNICMissing)
	}
	assert.Equal(t, before, show(t, hostile))
	assert.Empty(t, show(t, l.home))
}

func TestIntegrationMoveLate(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t))
	require.NoError(t, l.Prepare(t.Context(), m))
	type answer struct {
		times MoveTimes
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		_, times, err := l.Move(l.deadline(), m)
		done <- answer{times, err}
	}()
	l.awaitWaiter(m.MAC)
	l.plug(order(newNS(t)), "other")
	l.plug(m, "ens5")
	a := <-done
	require.NoError(t, a.err)
	assert.Positive(t, a.times.Appear)
}

func TestIntegrationMoveNever(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t))
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	_, _, err := l.Move(ctx, m)
	require.ErrorIs(t, err, vnic.ErrNICMissing)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Regexp(t, `^await vnic `+m.MAC.String()+`: vnic did not appear in the guest within 1\d\dms: `, err.Error())
	require.ErrorContains(t, err, "has it the driver virtio_net?")
	assert.Empty(t, l.links.waiters)
}

func TestIntegrationCloseAtOnce(t *testing.T) {
	needRoot(t)
	for range 100 { // before its goroutines have run
		require.NoError(t, newNS(t).Do(func() error {
			a, err := New(Config{})
			if err != nil {
				return err
			}
			return a.Close()
		}))
	}
}

func TestIntegrationRefused(t *testing.T) {
	l := newLab(t)
	tests := []struct {
		name   string
		change func(m *vnic.Move)
		want   error
	}{
		{"unknown name", func(m *vnic.Move) { m.Netns = "no-such-pod" }, vnic.ErrUnknownPod},
		{"unknown path", func(m *vnic.Move) { m.Netns = "/run/no-such-pod" }, vnic.ErrUnknownPod},
		{"unknown pid", func(m *vnic.Move) { m.Netns = "4194304" }, vnic.ErrUnknownPod},
		{"the vm's own", func(m *vnic.Move) { m.Netns = ref(l.home) }, vnic.ErrInvalid},
		{"no mac", func(m *vnic.Move) { m.MAC = vnic.MAC{} }, vnic.ErrInvalid},
		{"no id", func(m *vnic.Move) { m.ID = "" }, vnic.ErrInvalid},
		{"bad name", func(m *vnic.Move) { m.Interface = "a/b" }, vnic.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := order(newNS(t))
			tt.change(&m)
			require.ErrorIs(t, l.Prepare(t.Context(), m), tt.want)
			_, _, err := l.Move(t.Context(), m)
			require.ErrorIs(t, err, tt.want)
			_, err = l.Configure(t.Context(), m)
			require.ErrorIs(t, err, tt.want)
		})
	}
}

func TestIntegrationMoveMany(t *testing.T) {
	l := newLab(t)
	const n = 20
	orders := make([]vnic.Move, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range orders {
		orders[i] = order(newNS(t), fmt.Sprintf("10.0.%d.2/24", i))
		wg.Go(func() {
			ctx := l.deadline()
			if _, _, errs[i] = l.Move(ctx, orders[i]); errs[i] == nil {
				_, errs[i] = l.Configure(ctx, orders[i])
			}
		})
	}
	for i, m := range orders {
		l.plug(m, fmt.Sprintf("ens%d", i))
	}
	wg.Wait()
	for i, m := range orders {
		require.NoError(t, errs[i])
		ns, err := netnsx.Open(m.Netns)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("eth0 up 10.0.%d.2/24", i), show(t, ns))
		require.NoError(t, ns.Close())
	}
	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	assert.Len(t, nics, n)
}

// addVeth makes a veth pair, the other end of which is named peer.
func addVeth(t *testing.T, ns *netnsx.NS, name string) {
	t.Helper()
	in(t, ns, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"})
	})
}

func addAltName(link, name string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	return netlink.LinkAddAltName(l, name)
}

// TestIntegrationAttach does all in one call, and again.
func TestIntegrationAttach(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24", "fd00:1::2/64")
	m.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.0.1")}
	gateway := vnic.Neighbour{Address: netip.MustParseAddr("10.1.0.1"), MAC: vnic.MAC{2, 0, 0, 0, 0, 1}}
	m.Neighbours = []vnic.Neighbour{gateway}
	l.plug(m, "ens5")
	for range 2 {
		nic, times, err := l.Attach(l.deadline(), m)
		require.NoError(t, err)
		assert.True(t, nic.Up)
		assert.Equal(t, "eth0", nic.Interface)
		assert.Positive(t, times.Move)
		assert.Positive(t, times.Configure)
		assert.Contains(t, show(t, pod), "10.1.0.2/24")
		in(t, pod, func() error {
			list, err := netlink.NeighList(0, netlink.FAMILY_V4)
			if assert.Len(t, list, 1) {
				assert.Equal(t, gateway.Address.String(), list[0].IP.String())
				assert.Equal(t, gateway.MAC.String(), list[0].HardwareAddr.String())
				assert.Equal(t, netlink.NUD_PERMANENT, list[0].State)
			}
			return err
		})
	}
	bad := order(pod, "10.1.0.3/24")
	bad.Interface = "net1"
	bad.Routes = m.Routes // the other interface's
	l.park(bad)
	_, _, err := l.Attach(l.deadline(), bad)
	require.ErrorIs(t, err, vnic.ErrConflict)
	l.retrieve(bad)
	assert.NotContains(t, show(t, pod), "net1")
}
