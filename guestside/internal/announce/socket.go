package announce

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Socket sends announcements in one network namespace. A frame that the device
// never gets rid of, because the host's side doesn't take it, keeps the
// namespace alive even after Close.
type Socket struct{ fd int }

// Open returns a socket of the calling thread's network namespace. It receives
// nothing: its protocol is 0 (packet(7)).
func Open() (Socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return Socket{}, fmt.Errorf("open packet socket: %w", err)
	}
	return Socket{fd}, nil
}

// Send announces over a link that those addresses are at mac. The link must be
// up. It sends one frame an address and goes on after one that fails.
func (s Socket) Send(index int, mac vnic.MAC, addrs []netip.Addr) error {
	var errs error
	for _, a := range addrs {
		to := &unix.SockaddrLinklayer{Ifindex: index, Halen: uint8(len(mac))}
		f := Frame(mac, a)
		copy(to.Addr[:], f[:len(mac)])
		if err := unix.Sendto(s.fd, f, 0, to); err != nil {
			errs = errors.Join(errs, fmt.Errorf("announce %s: %w", a, err))
		}
	}
	return errs
}

// Close closes the socket. It takes long, the kernel waits for an RCU grace
// period (packet_release in net/packet/af_packet.c): milliseconds in a guest.
func (s Socket) Close() error {
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close packet socket: %w", err)
	}
	return nil
}
