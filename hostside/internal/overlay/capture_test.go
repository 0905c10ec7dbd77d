package overlay_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// capture counts what a hypervisor sends to the underlay and gets from there.
type capture struct {
	mu    sync.Mutex
	kinds map[string]int
	file  *os.File
	done  chan struct{}
}

const (
	arp       = 0x0806
	ipv4      = 0x0800
	ipv6      = 0x86dd
	vxlanPort = 4789
)

// watch begins to capture at a hypervisor's link to the underlay.
func (h *hyper) watch(t *testing.T) *capture {
	t.Helper()
	c := &capture{kinds: map[string]int{}, done: make(chan struct{})}
	h.In(func() error {
		const all = uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)                                     // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0) // until it is bound it hears of no link
		if err != nil {
			return err
		}
		c.file = os.NewFile(uintptr(fd), "capture")
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	})
	go c.read()
	t.Cleanup(func() {
		_ = c.file.Close()
		<-c.done
	})
	return c
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
		c.kinds[classify(buf[:n])]++
		c.mu.Unlock()
	}
}

// stop ends the capture once all that was sent has been read, and returns what that was.
func (c *capture) stop(t *testing.T) map[string]int {
	t.Helper()
	require.NoError(t, c.file.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	<-c.done
	return c.kinds
}

// classify names a frame: "vxlan" and what is in it if it goes to UDP port 4789.
func classify(b []byte) string {
	kind, payload := ether(b)
	inner, ok := tunnelled(kind, payload)
	switch {
	case ok:
	case kind == arp || icmp6(kind, payload):
		return "underlay's own"
	default:
		return "plain"
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
	case kind == arp:
		return "vxlan arp " + to
	case icmp6(kind, payload) && payload[40] >= 133 && payload[40] <= 137:
		return "vxlan nd " + to
	case kind == ipv4 || kind == ipv6:
		return "vxlan ip " + to
	}
	return fmt.Sprintf("vxlan %#x %s", kind, to)
}

// icmp6 tells whether a packet is ICMPv6, or hop-by-hop options before a report of groups.
func icmp6(kind uint16, b []byte) bool {
	return kind == ipv6 && len(b) > 40 && (b[6] == unix.IPPROTO_ICMPV6 || b[6] == unix.IPPROTO_HOPOPTS)
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
	case kind == ipv4 && len(b) > 20+16+14 && b[9] == unix.IPPROTO_UDP:
		udp = b[4*int(b[0]&15):]
	case kind == ipv6 && len(b) > 40+16+14 && b[6] == unix.IPPROTO_UDP:
		udp = b[40:]
	default:
		return nil, false
	}
	return udp[16:], binary.BigEndian.Uint16(udp[2:]) == vxlanPort
}
