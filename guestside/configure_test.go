package guestside

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/guestside/internal/announce"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func route(dst, gateway string) vnic.Route {
	r := vnic.Route{Destination: netip.MustParsePrefix(dst)}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

// hostSide gives the host's end of a stand-in its addresses.
func (l *lab) hostSide(m vnic.Move, addrs ...string) {
	l.t.Helper()
	require.NoError(l.t, within(l.host, func(c *rtnl.Conn) error {
		link, err := c.Link(m.ID.LinkName())
		if err != nil {
			return err
		}
		for _, a := range addrs {
			err = errors.Join(err, c.Do(rtnl.SetAddr(link.Index, netip.MustParsePrefix(a))))
		}
		return err
	}))
}

func TestIntegrationConfigure(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24", "fd00:1::2/64")
	m.MTU = 1450
	m.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00:1::1"), route("10.9.0.0/16", "")}
	l.plug(m, "ens5")
	l.hostSide(m, "10.1.0.1/24", "fd00:1::1/64", "10.77.0.1/32", "fd00:77::1/128")

	nic := l.attach(m)
	ll := netip.PrefixFrom(m.MAC.LinkLocal(), 64)
	assert.True(t, nic.Up)
	assert.Equal(t, append(m.Addresses, ll), nic.Addresses)
	want := "eth0 up mtu 1450 0.0.0.0/0 via 10.1.0.1, 10.1.0.2/24, 10.9.0.0/16 via invalid IP, ::/0 via fd00:1::1, fd00:1::2/64, " + ll.String()
	assert.Equal(t, want, show(t, pod))

	exchange(t, pod, l.host, netip.MustParseAddr("10.77.0.1")) // over the default route
	exchange(t, l.host, pod, netip.MustParseAddr("10.1.0.2"))
	exchange(t, pod, l.host, netip.MustParseAddr("fd00:77::1"))
	exchange(t, l.host, pod, netip.MustParseAddr("fd00:1::2"))

	again, err := l.Configure(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, nic, again, "the second time has the same answer")
	assert.Equal(t, want, show(t, pod))

	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	require.Len(t, nics, 1)
	assert.ElementsMatch(t, nic.Addresses, nics[0].Addresses)
	nics[0].Addresses = nic.Addresses
	assert.Equal(t, nic, nics[0])
}

// What is wanted replaces what is there.
func TestIntegrationConfigureChange(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24", "fd00:1::2/64")
	m.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.0.1"), route("10.9.0.0/16", "10.1.0.9")}
	l.plug(m, "ens5")
	l.attach(m)
	m.Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16")}
	m.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.2.1")}
	_, err := l.Configure(l.deadline(), m)
	require.NoError(t, err)
	assert.Equal(t, "eth0 up 0.0.0.0/0 via 10.1.2.1, 10.1.0.2/16", show(t, pod))
}

// A gateway outside of all prefixes is taken for a neighbour.
func TestIntegrationConfigureOnLinkGateway(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/32", "fd00:1::2/128")
	m.Routes = []vnic.Route{route("0.0.0.0/0", "169.254.1.1"), route("::/0", "fe80::1")}
	l.plug(m, "ens5")
	l.hostSide(m, "169.254.1.1/32", "fe80::1/64")
	l.attach(m)
	m.Addresses = nil // what follows is about routes
	assert.Contains(t, show(t, pod), "0.0.0.0/0 via 169.254.1.1")
	assert.Contains(t, show(t, pod), "::/0 via fe80::1")
}

func TestIntegrationConfigureSecondInterface(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	one, two := order(pod, "10.1.0.2/24"), order(pod, "10.2.0.2/24")
	one.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.0.1")}
	two.Routes = []vnic.Route{route("0.0.0.0/0", "10.2.0.1")}
	two.Interface = "eth1"
	l.plug(one, "ens5")
	l.plug(two, "ens6")
	l.attach(one)
	_, _, err := l.Move(l.deadline(), two)
	require.NoError(t, err)
	_, err = l.Configure(l.deadline(), two)
	require.ErrorIs(t, err, vnic.ErrConflict)
	require.ErrorContains(t, err, "add route 0.0.0.0/0 via 10.2.0.1")
	require.ErrorContains(t, err, "attach without default routes")

	two.Routes = nil
	l.attach(two)
	assert.Equal(t, "eth0 up 0.0.0.0/0 via 10.1.0.1, 10.1.0.2/24\neth1 up 10.2.0.2/24", show(t, pod))
}

func TestIntegrationConfigureNotThere(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	_, err := l.Configure(l.deadline(), m)
	require.ErrorIs(t, err, vnic.ErrNICMissing)
	addVeth(t, pod, "eth0") // not the one
	_, err = l.Configure(l.deadline(), m)
	require.ErrorIs(t, err, vnic.ErrNICMissing)
	assert.ErrorContains(t, err, "it has to be moved first")
}

// Container engines turn IPv6 off in pods that they give no IPv6 address.
func TestIntegrationConfigureIPv6Off(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	in(t, pod, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o600)
	})
	m := order(pod, "fd00:1::2/64")
	l.plug(m, "ens5")
	l.hostSide(m, "fd00:1::1/64")
	l.attach(m)
	exchange(t, l.host, pod, netip.MustParseAddr("fd00:1::2"))
}

func TestIntegrationConfigureNoIPv6Wanted(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24")
	l.plug(m, "ens5")
	l.attach(m)
	assert.Equal(t, "eth0 up 10.1.0.2/24", show(t, pod), "not even a link-local address")
	in(t, pod, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/accept_ra")
		assert.Equal(t, "0\n", string(b))
		return err
	})
}

// A virtio NIC whose MAC was changed is still the vNIC, but the host drops what
// it sends. A veth has no permanent MAC to be known by, so this looks at the plan.
func TestConfigureRestoresTheMAC(t *testing.T) {
	m := vnic.Move{MAC: vnic.NewMAC()}
	plan := func(mac vnic.MAC) (texts []string) {
		s := setup{m: m, link: rtnl.Link{Index: 3, MAC: mac, Permanent: m.MAC, Up: true}}
		for _, r := range s.plan() {
			texts = append(texts, r.String())
		}
		return texts
	}
	want := "set link 3: mac " + m.MAC.String()
	assert.Contains(t, plan(vnic.NewMAC()), want)
	assert.NotContains(t, plan(m.MAC), want)
}

func TestIntegrationConfigureWithoutCarrier(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24")
	l.plug(m, "ens5")
	require.NoError(t, within(l.host, func(c *rtnl.Conn) error {
		link, err := c.Link(m.ID.LinkName())
		return errors.Join(err, c.Do(rtnl.SetDown(link.Index)))
	}))
	nic := l.attach(m)
	assert.True(t, nic.Up)
}

func TestIntegrationAnnounce(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t), "10.1.0.2/24", "fd00:1::2/64")
	l.plug(m, "ens5")
	frames := listen(t, l.host, m.ID.LinkName())
	l.attach(m)
	for _, a := range []netip.Addr{m.Addresses[0].Addr(), m.Addresses[1].Addr(), m.MAC.LinkLocal()} {
		want := announce.Frame(m.MAC, a)
		assert.True(t, frames(want), "announcement of %s", a)
	}
}

// listen returns a function that tells whether a frame comes in over a link.
func listen(t *testing.T, ns *netnsx.NS, link string) func(frame []byte) bool {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	var fd int
	in(t, ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // until it is bound it hears of no link
		return err
	})
	t.Cleanup(func() { assert.NoError(t, unix.Close(fd)) })
	index := linksOf(t, ns)[link].Index
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	tv := unix.NsecToTimeval(int64(2 * time.Second))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	var seen [][]byte
	return func(frame []byte) bool {
		for _, s := range seen {
			if bytes.HasPrefix(s, frame) {
				return true
			}
		}
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			buf := make([]byte, 2048)
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return false
			}
			seen = append(seen, buf[:n])
			if bytes.HasPrefix(buf[:n], frame) {
				return true
			}
		}
		return false
	}
}
