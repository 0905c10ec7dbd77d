package reserve

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

const (
	errInUse      = unix.EADDRINUSE
	errNoAddress  = unix.EADDRNOTAVAIL
	errNotAllowed = unix.EACCES
)

// sctp is there when the kernel has SCTP, in the calling thread's namespace.
const sctp = "/proc/thread-self/net/sctp"

// bind returns a socket that is bound to p in the calling thread's namespace.
func bind(p Port) (int, error) {
	fd, err := open(p)
	if err != nil || fd == unbound {
		return unbound, explain(p, err)
	}
	if err = prepare(fd, p); err == nil {
		err = unix.Bind(fd, address(p))
	}
	if err == nil {
		// Only our own bind takes over from what others leave in TIME_WAIT.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	if err != nil {
		return unbound, errors.Join(explain(p, err), unix.Close(fd))
	}
	return fd, nil
}

// open makes a socket. Where the kernel has no SCTP, nobody can have the port
// and there is nothing to keep; to ask for such a socket might load a module
// that the operator doesn't want.
func open(p Port) (int, error) {
	family, kind, protocol := unix.AF_INET, unix.SOCK_STREAM, 0
	if p.Address.Addr().Is6() {
		family = unix.AF_INET6
	}
	switch p.Protocol {
	case vnic.UDP:
		kind = unix.SOCK_DGRAM
	case vnic.SCTP:
		protocol = unix.IPPROTO_SCTP
		if _, err := os.Stat(sctp); err != nil {
			return unbound, nil //nolint:nilerr // no SCTP is no failure
		}
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
}

func prepare(fd int, p Port) error {
	var errs error
	if p.Address.Addr().Is6() {
		errs = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if p.Protocol == vnic.TCP {
		errs = errors.Join(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	if p.Protocol == vnic.UDP {
		// What comes by the loopback is not translated, and must not pile up.
		nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
		errs = errors.Join(errs, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]}))
	}
	return errs
}

func address(p Port) unix.Sockaddr {
	a, port := p.Address.Addr(), int(p.Address.Port())
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

func closeSocket(fd int) {
	if fd != unbound {
		_ = unix.Close(fd) // it holds no data that could fail to be written
	}
}
