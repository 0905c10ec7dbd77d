package rtnl_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// TestIntegrationPersistTap: a tap outlives its descriptors, and is nobody else's.
func TestIntegrationPersistTap(t *testing.T) {
	inNewNetns(t, func(h *rtnl.Handle) error {
		const name = "brf0000000001"
		files, err := rtnl.OpenTap(name, 1)
		require.NoError(t, err)
		require.NoError(t, rtnl.PersistTap(files[0], 0))
		require.NoError(t, rtnl.CloseFiles(files))
		link, err := h.HostLink(name)
		require.NoError(t, err)
		require.ErrorIs(t, openAs(12345, name), unix.EPERM)
		require.NoError(t, openAs(0, name))
		return h.DeleteHostLink(link)
	})
}

// openAs opens a tap as a user, on the calling thread, which the namespace locks.
func openAs(uid int, name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return errno
	}
	defer syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)) //nolint:errcheck // back to root can't fail
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}
