package netload

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sockaddr returns a as the kernel wants it, and its address family.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, unix.AF_INET
	}
	zone, _ := strconv.ParseUint(ip.Zone(), 10, 32) // see checkAddr
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16(), ZoneId: uint32(zone)}, unix.AF_INET6
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func localAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask for local address: %w", err)
	}
	return addrPort(sa), nil
}

func peerAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask for peer's address: %w", err)
	}
	return addrPort(sa), nil
}

// checkAddr says whether a can be listened on or dialed here.
func checkAddr(a netip.AddrPort) error {
	if !a.IsValid() {
		return errors.New("no address")
	}
	if zone := a.Addr().Zone(); zone != "" {
		if _, err := strconv.ParseUint(zone, 10, 32); err != nil {
			return fmt.Errorf("zone %q: give the interface's index", zone)
		}
	}
	return nil
}

// newSocket returns a socket for family, prepared by the options.
func newSocket(family, kind int, opts ...func(fd int) error) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	for _, opt := range opts {
		if err := opt(fd); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	return fd, nil
}

func flag(level, option int) func(fd int) error {
	return func(fd int) error {
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fmt.Errorf("set socket option: %w", err)
		}
		return nil
	}
}

// timeout bounds every wait of the socket; 0 takes the bound away.
func timeout(d time.Duration) func(fd int) error {
	tv := unix.NsecToTimeval(max(d, 0).Nanoseconds())
	if d > 0 && tv.Sec == 0 && tv.Usec == 0 {
		tv.Usec = 1 // 0 would be no bound
	}
	return func(fd int) error {
		err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
		}
		if err != nil {
			return fmt.Errorf("set socket timeout: %w", err)
		}
		return nil
	}
}

func bindTo(a netip.AddrPort) func(fd int) error {
	return func(fd int) error {
		sa, _ := sockaddr(a)
		if err := unix.Bind(fd, sa); err != nil {
			return fmt.Errorf("bind to %s: %w", a, err)
		}
		return nil
	}
}

func connectTo(a netip.AddrPort) func(fd int) error {
	return func(fd int) error {
		sa, _ := sockaddr(a)
		if err := connect(fd, sa); err != nil {
			return fmt.Errorf("connect to %s: %w", a, err)
		}
		return nil
	}
}

// connect waits as long as the socket's timeout. An interrupted connect goes
// on when it is called again (Linux).
func connect(fd int, sa unix.Sockaddr) error {
	for {
		switch err := unix.Connect(fd, sa); {
		case err == nil, errors.Is(err, unix.EISCONN):
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EALREADY):
			return os.ErrDeadlineExceeded
		default:
			return err
		}
	}
}

// readSome reads at least a byte. The end of the stream is io.EOF. Errors are
// bare here and in the other hot loops: errors.Is costs more than the comparison.
func readSome(fd int, b []byte) (int, error) {
	for {
		n, errno := read(fd, b)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := readSome(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, errno := write(fd, b)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return os.ErrDeadlineExceeded
		case errno != 0:
			return errno
		default:
			b = b[n:]
		}
	}
	return nil
}

// sockets are descriptors in use. To end the waits of those who use them it
// shuts them down; whoever uses one closes it. It is safe for concurrent use.
type sockets struct {
	mu   sync.Mutex // guards what follows
	open map[int]struct{}
	down bool
}

// add takes fd in. It is false, and fd is not taken, once all are shut down.
func (s *sockets) add(fd int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return false
	}
	if s.open == nil {
		s.open = map[int]struct{}{}
	}
	s.open[fd] = struct{}{}
	return true
}

// shutdown ends all waits, now and later.
func (s *sockets) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for fd := range s.open {
		// An unconnected socket says ENOTCONN and ends its waits all the same.
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
}

func (s *sockets) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *sockets) close(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, fd)
	_ = unix.Close(fd) // nothing was written that could be lost
}

// forget leaves fd to somebody else.
func (s *sockets) forget(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, fd)
}
