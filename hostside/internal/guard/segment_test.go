package guard_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/internal/frametest"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// vnetHeader is the size of the virtio-net header before each frame of a tap.
const vnetHeader = 10

// segment is a bridge with two taps, whose far ends the test holds, and the host.
type segment struct {
	t    *testing.T
	ns   *netnstest.NS
	nl   *rtnl.Handle
	g    *guard.Guard
	br   rtnl.HostLink
	host *os.File // a packet socket on the bridge itself
	a, b pod

	// One of macvtaps has an uplink, and br is the link at its other end.
	uplink rtnl.HostLink
	conn   *rtnl.Conn
}

type pod struct {
	id   vnic.ID
	mac  vnic.MAC
	ll   string
	file *os.File
}

const (
	aIP4, bIP4, hostIP4 = "10.9.0.2", "10.9.0.3", "10.9.0.1"
	aIP6, bIP6, hostIP6 = "fd00:9::2", "fd00:9::3", "fd00:9::1"
)

func testNetwork() vnic.Network {
	return vnic.Network{
		Name: "net", Bridge: "br", Masquerade: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")},
	}
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{t: t, ns: netnstest.New(t)}
	// Else the bridge's packets pass the hooks of IP, which hold fragments back.
	for _, call := range []string{"iptables", "ip6tables"} {
		s.ns.Run("sysctl", "-qew", "net.bridge.bridge-nf-call-"+call+"=0")
	}
	s.ns.In(func() (err error) {
		if s.nl, err = rtnl.New(); err != nil {
			return err
		}
		s.g, err = guard.Open(discard())
		return err
	})
	t.Cleanup(s.nl.Close)
	t.Cleanup(func() { require.NoError(t, s.g.Close()) })
	require.NoError(t, s.g.SetNetwork(t.Context(), testNetwork()))
	require.NoError(t, s.nl.AddBridge(rtnl.Bridge{Name: "br", MAC: vnic.NewMAC(), MTU: 1500}))
	br, err := s.nl.HostLink("br")
	require.NoError(t, err)
	s.br = br
	require.NoError(t, s.nl.SetHostAddrs(br, []netip.Prefix{
		netip.MustParsePrefix(hostIP4 + "/24"), netip.MustParsePrefix(hostIP6 + "/64"),
	}))
	require.NoError(t, s.nl.SetLinkUp(br))
	s.a = s.pod(vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0x0a}, aIP4, aIP6)
	s.b = s.pod(vnic.MAC{0x02, 0, 0x5e, 0, 0x53, 0x0b}, bIP4, bIP6)
	s.host = s.listen()
	return s
}

func (s *segment) pod(mac vnic.MAC, addrs ...string) pod {
	s.t.Helper()
	if s.conn != nil {
		return s.directPod(mac, addrs...)
	}
	p := pod{id: vnic.NewID(), mac: mac, ll: mac.LinkLocal().String()}
	s.ns.In(func() error {
		files, err := rtnl.OpenTap(p.id.TapName(), 1)
		if err == nil {
			p.file = files[0]
		}
		return err
	})
	s.t.Cleanup(func() { require.NoError(s.t, p.file.Close()) })
	if len(addrs) > 0 {
		port := guard.Port{Tap: p.id.TapName(), MAC: mac}
		for _, a := range addrs {
			port.Addresses = append(port.Addresses, netip.MustParseAddr(a))
		}
		require.NoError(s.t, s.g.SetPort(s.t.Context(), port))
	}
	l, err := s.nl.HostLink(p.id.TapName())
	require.NoError(s.t, err)
	s.ns.Run("sysctl", "-qw", "net.ipv6.conf."+l.Name+".disable_ipv6=1")
	require.NoError(s.t, s.nl.JoinBridge(l, s.br, mac))
	require.NoError(s.t, s.nl.SetLinkUp(l))
	return p
}

// listen opens a packet socket that sees what the bridge hands to the host.
func (s *segment) listen() *os.File {
	s.t.Helper()
	var fd int
	s.ns.In(func() (err error) {
		all := int(frametest.BE16(unix.ETH_P_ALL)[0]) | int(frametest.BE16(unix.ETH_P_ALL)[1])<<8    // network order
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // until it is bound it hears of no link
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: s.br.Index})
	})
	f := os.NewFile(uintptr(fd), "packet")
	s.t.Cleanup(func() { require.NoError(s.t, f.Close()) })
	return f
}

func (p pod) send(t *testing.T, frame []byte) {
	t.Helper()
	_, err := p.file.Write(append(make([]byte, vnetHeader), frame...))
	require.NoError(t, err)
}

// seenBefore returns the frames that come out of f before the marker.
func seenBefore(t *testing.T, f *os.File, header int, marker []byte) [][]byte {
	t.Helper()
	require.NoError(t, f.SetReadDeadline(time.Now().Add(5*time.Second)))
	var seen [][]byte
	for {
		buf := make([]byte, 4096)
		n, err := f.Read(buf)
		require.NoError(t, err, "await the marker frame")
		frame := buf[header:n]
		if bytes.Equal(frame, marker) {
			return seen
		}
		seen = append(seen, frame)
	}
}

func contains(frames [][]byte, frame []byte) bool {
	for _, f := range frames {
		if bytes.Equal(f, frame) {
			return true
		}
	}
	return false
}

// passes sends frame from pod a, and then a marker that always passes, and
// tells who saw frame by then: the other pod, and the host.
func (s *segment) passes(t *testing.T, frame []byte) (neighbour, host bool) {
	t.Helper()
	marker := frametest.Ether(s.a.mac, frametest.Broadcast, unix.ETH_P_IP, frametest.IP4(aIP4, "10.9.0.255", unix.IPPROTO_UDP, frametest.UDP(9, 9)))
	s.a.send(t, frame)
	s.a.send(t, marker)
	return contains(seenBefore(t, s.b.file, vnetHeader, marker), frame), contains(seenBefore(t, s.host, 0, marker), frame)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
