package libvirtvm

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer returns the user that libvirtd runs as.
func (c *client) peer() (uid int, err error) {
	sc, ok := c.nc.Conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("ask who libvirtd is: no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who libvirtd is: %w", err)
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, fmt.Errorf("ask who libvirtd is: %w", err)
	}
	return int(cred.Uid), nil
}
