package port_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/vnic"
)

// vnetHeader is the size of the virtio-net header before each frame.
const vnetHeader = 10

func macvtapNetwork(t *testing.T) vnic.Network {
	t.Helper()
	return network(t, func(n *vnic.Network) { n.Kind, n.Uplink = vnic.KindMacvtap, "wan" })
}

// uplinked returns a namespace with a link that is up, with carrier.
func uplinked(t *testing.T) *netnstest.NS {
	t.Helper()
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far")
	ns.Run("ip", "link", "set", "wan", "up")
	ns.Run("ip", "link", "set", "far", "up")
	return ns
}

func TestIntegrationMacvtap(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	n := macvtapNetwork(t)
	before := ns.State()
	require.NoError(t, l.SetNetwork(t.Context(), n))
	assert.Equal(t, before, ns.State(), "nothing is made for the network itself")

	p := plug(n)
	p.Queues = 3
	tap, err := l.OpenMacvtap(t.Context(), p, n)
	require.NoError(t, err)
	assert.Len(t, tap.Files, 3)
	show := func() string { return ns.Run("ip", "-d", "link", "show", tap.Name) }
	for _, want := range []string{"macvtap mode bridge", p.MAC.String(), "mtu 1400", "NOARP", "ALLMULTI", "alias brfuse vm vm network pods"} {
		assert.Contains(t, show(), want)
	}
	assert.NotContains(t, show(), ",UP")
	assert.Equal(t, "1\n", ns.Run("sysctl", "-n", "net.ipv6.conf."+tap.Name+".disable_ipv6"))
	for _, f := range tap.Files {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		require.NoError(t, err)
		assert.Equal(t, unix.FD_CLOEXEC, flags)
	}
	_, err = l.OpenMacvtap(t.Context(), p, n)
	require.ErrorIs(t, err, fs.ErrExist)
	states := func() port.TapState {
		all, err := l.TapStates(t.Context())
		require.NoError(t, err)
		return all[p.ID]
	}
	assert.Equal(t, port.TapState{Network: "pods", Direct: true}, states())

	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC), "again")
	assert.Equal(t, port.TapState{Network: "pods", Direct: true, Up: true}, states())
	require.ErrorIs(t, l.RemoveNetwork(t.Context(), n), vnic.ErrInUse)
	require.NoError(t, l.Park(t.Context(), p.ID))
	assert.Contains(t, show(), "alias brfuse vm vm network pods parked")
	assert.Equal(t, port.TapState{Network: "pods", Direct: true}, states())
	require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
	assert.NotContains(t, show(), "parked")
	require.NoError(t, l.Leave(t.Context(), p.ID))
	assert.NotContains(t, show(), ",UP")
	require.ErrorIs(t, l.Join(t.Context(), tap.Name, network(t, nil), p.MAC), vnic.ErrNotFound, "a network that is no longer of macvtaps")
	require.ErrorIs(t, l.Join(t.Context(), tap.Name, n, vnic.NewMAC()), vnic.ErrNotFound)

	require.NoError(t, tap.Close())
	has, err := l.HasTap(t.Context(), p.ID)
	require.NoError(t, err)
	assert.True(t, has, "it lasts")
	require.NoError(t, l.DeleteTap(t.Context(), p.ID))
	require.NoError(t, l.DeleteTap(t.Context(), p.ID), "again")
	require.NoError(t, l.RemoveNetwork(t.Context(), n))
	assert.Equal(t, before, ns.State())
}

func TestIntegrationMacvtapCarriesFrames(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	n := macvtapNetwork(t)
	open := func() (vnic.Plug, port.Tap) {
		p := plug(n)
		tap, err := l.OpenMacvtap(t.Context(), p, n)
		require.NoError(t, err)
		t.Cleanup(func() {
			require.NoError(t, errors.Join(tap.Close(), l.DeleteTap(context.WithoutCancel(t.Context()), p.ID)))
		})
		require.NoError(t, l.Join(t.Context(), tap.Name, n, p.MAC))
		return p, tap
	}
	a, aTap := open()
	b, bTap := open()
	group := vnic.MAC{0x33, 0x33, 0xff, 0, 0, 2} // nobody told the kernel that the guest is in it
	for _, to := range []vnic.MAC{b.MAC, frametest.Broadcast, group} {
		frame := frametest.Ether(a.MAC, to, unix.ETH_P_IP, frametest.IP4("10.9.0.2", "10.9.0.3", unix.IPPROTO_UDP, frametest.UDP(1, 2)))
		_, err := aTap.Files[0].Write(append(make([]byte, vnetHeader), frame...))
		require.NoError(t, err)
		require.NoError(t, bTap.Files[0].SetReadDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 4096)
		got, err := bTap.Files[0].Read(buf)
		require.NoError(t, err, "await the frame to %s", to)
		assert.Equal(t, frame, buf[vnetHeader:got])
	}
}

func TestIntegrationMacvtapRefused(t *testing.T) {
	ns := uplinked(t)
	l := newLinks(t, ns)
	n := macvtapNetwork(t)
	other := n
	other.Uplink = "none"
	err := l.SetNetwork(t.Context(), other)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, "set network pods: no uplink none here")
	other = n
	other.MTU = 9000
	require.ErrorContains(t, l.SetNetwork(t.Context(), other), "mtu 9000 is larger than 1500 of uplink wan")

	p := plug(n)
	p.MAC, err = vnic.ParseMAC(strings.Fields(ns.Run("ip", "-br", "link", "show", "wan"))[2])
	require.NoError(t, err)
	tap, err := l.OpenMacvtap(t.Context(), p, n)
	require.NoError(t, err)
	err = l.Join(t.Context(), tap.Name, n, p.MAC)
	require.ErrorIs(t, err, vnic.ErrAddressTaken)
	require.ErrorContains(t, err, "is that of uplink wan or of another link on it; choose another")
	require.NoError(t, tap.Close())
	require.NoError(t, l.DeleteTap(t.Context(), p.ID))

	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "set", "wan", "master", "br0")
	err = l.SetNetwork(t.Context(), n)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, "uplink wan is a port of a bridge or bond")
	before := ns.State()
	_, err = l.OpenMacvtap(t.Context(), plug(n), n)
	require.ErrorIs(t, err, vnic.ErrConflict)
	assert.Equal(t, before, ns.State())
}
