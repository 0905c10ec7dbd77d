package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	etherARP  = 0x0806
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	vxlanPort = 4789
)

// capture counts by kind the frames that a hypervisor exchanges with the underlay.
type capture struct {
	inner []netip.Prefix // of the networks, which are to be seen in the tunnel only
	file  *os.File
	done  chan struct{}

	mu    sync.Mutex
	kinds map[string]int // guarded by mu
}

// watch begins to capture at a hypervisor's link to the underlay.
func (h *hyper) watch(t *testing.T, inner ...string) *capture {
	t.Helper()
	c := &capture{kinds: map[string]int{}, done: make(chan struct{})}
	for _, p := range inner {
		c.inner = append(c.inner, netip.MustParsePrefix(p))
	}
	require.NoError(t, h.Net.NS().Do(func() (err error) {
		c.file, err = openCapture(uplink)
		return err
	}))
	go c.read()
	t.Cleanup(func() {
		_ = c.file.Close()
		<-c.done
	})
	return c
}

// openCapture returns a packet(7) socket of a link.
func openCapture(link string) (*os.File, error) {
	const all = uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)                                     // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0) // until it is bound it hears of no link
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "capture")
	l, err := net.InterfaceByName(link)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	return f, err
}

func (c *capture) read() {
	defer close(c.done)
	buf := make([]byte, 128<<10)
	for {
		n, err := c.file.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.kinds[c.classify(buf[:n])]++
		c.mu.Unlock()
	}
}

// drain is how long nothing may come until a capture has read all.
const drain = 300 * time.Millisecond

// stop ends the capture once all that was sent has been read, and returns how many
// frames there were of each kind.
func (c *capture) stop(t *testing.T) map[string]int {
	t.Helper()
	require.NoError(t, c.file.SetReadDeadline(time.Now().Add(drain)))
	<-c.done
	return c.kinds
}

// classify names a frame: "vxlan" and what is in it if it goes to the tunnel's port.
func (c *capture) classify(b []byte) string {
	kind, payload := ether(b)
	inner, ok := tunnelled(kind, payload)
	switch {
	case fragment(kind, payload):
		return "fragment"
	case !ok && c.escaped(kind, payload):
		return fmt.Sprintf("inner packet outside of the tunnel: %x", b[:min(len(b), 96)])
	case !ok:
		return "underlay's own"
	}
	kind, payload = ether(inner)
	to := "unicast"
	if inner[0]&1 != 0 {
		to = "group"
	}
	if _, again := tunnelled(kind, payload); again {
		return "vxlan twice"
	}
	switch {
	case kind == etherARP:
		return "vxlan arp " + to
	case kind == etherIPv6 && len(payload) > 40 && payload[6] == unix.IPPROTO_ICMPV6 && payload[40] >= 133 && payload[40] <= 137:
		return "vxlan nd " + to
	case kind == etherIPv4 || kind == etherIPv6:
		return "vxlan ip " + to
	}
	return fmt.Sprintf("vxlan %#x %s", kind, to)
}

// escaped tells whether a packet, or what an ARP packet asks for, is of a network's subnets.
func (c *capture) escaped(kind uint16, b []byte) bool {
	var from, to netip.Addr
	switch {
	case kind == etherIPv4 && len(b) >= 20:
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	case kind == etherIPv6 && len(b) >= 40:
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	case kind == etherARP && len(b) >= 28:
		from, to = netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	}
	for _, p := range c.inner {
		if p.Contains(from) || p.Contains(to) {
			return true
		}
	}
	return false
}

// fragment tells whether a packet is part of one that was too large for the underlay.
func fragment(kind uint16, b []byte) bool {
	return kind == etherIPv4 && len(b) >= 20 && binary.BigEndian.Uint16(b[6:])&0x3fff != 0 ||
		kind == etherIPv6 && len(b) >= 40 && b[6] == unix.IPPROTO_FRAGMENT
}

func ether(b []byte) (kind uint16, payload []byte) {
	if len(b) < 14 {
		return 0, nil
	}
	return binary.BigEndian.Uint16(b[12:]), b[14:]
}

// tunnelled returns the frame in a packet of the tunnel.
func tunnelled(kind uint16, b []byte) ([]byte, bool) {
	var udp []byte
	switch {
	case kind == etherIPv4 && len(b) > 20+16+14 && b[9] == unix.IPPROTO_UDP:
		udp = b[4*int(b[0]&15):]
	case kind == etherIPv6 && len(b) > 40+16+14 && b[6] == unix.IPPROTO_UDP:
		udp = b[40:]
	default:
		return nil, false
	}
	return udp[16:], binary.BigEndian.Uint16(udp[2:]) == vxlanPort
}
