package integration

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/site"
)

// arpFrame is the size of an ARP packet over Ethernet, without padding.
const arpFrame = 42

// listenARP sees the ARP packets on a bridge from now on. The returned function waits
// for one by which a station tells its neighbours where it is.
func listenARP(t *testing.T, s *site.Site, bridge string) func(ctx context.Context, mac, addr string) {
	t.Helper()
	fd := -1
	require.NoError(t, s.Net.NS().Do(func() (err error) {
		proto := uint16(unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8) // in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := unix.NewIfreq(bridge)
		if err != nil {
			return err
		}
		if err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, link); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: int(link.Uint32())})
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	return func(ctx context.Context, mac, addr string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		frame := make([]byte, 2048)
		for ctx.Err() == nil {
			n, _, err := unix.Recvfrom(fd, frame, 0)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			require.NoError(t, err)
			if n >= arpFrame && tells(frame, mac, addr) {
				return
			}
		}
		require.Fail(t, "the neighbours were not told", "%s is at %s", addr, mac)
	}
}

// tells reports whether an ARP packet says of its own accord that addr is at mac.
func tells(frame []byte, mac, addr string) bool {
	sender, _ := netip.AddrFromSlice(frame[28:32])
	target, _ := netip.AddrFromSlice(frame[38:42])
	return net.HardwareAddr(frame[22:28]).String() == mac && sender == target && sender.String() == addr
}
