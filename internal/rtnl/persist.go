package rtnl

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// PersistTap has a tap, of which f is a queue, stay when its descriptors are closed,
// until it is deleted. From then on only that user, and who has CAP_NET_ADMIN, may
// open it. Without an owner everybody might, on older kernels.
func PersistTap(f *os.File, owner int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("persist tap: %w", err)
	}
	var ierr error
	cerr := raw.Control(func(fd uintptr) {
		if ierr = unix.IoctlSetInt(int(fd), unix.TUNSETOWNER, owner); ierr == nil {
			ierr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1)
		}
	})
	if ierr != nil {
		return fmt.Errorf("persist tap: %w", ierr)
	}
	if cerr != nil {
		return fmt.Errorf("persist tap: %w", cerr)
	}
	return nil
}
