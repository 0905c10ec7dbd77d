package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	tunDevice   = "/dev/net/tun"
	vhostDevice = "/dev/vhost-net"
)

// OpenTap makes a tap of that name in the calling thread's network namespace
// and returns its descriptors, one for each queue, close-on-exec and
// non-blocking. The tap carries virtio-net headers. It is down.
//
// The tap is not persistent: it exists while any process holds one of its
// descriptors. So the hypervisor's death removes it, and the death of the
// process that passed them on does not.
//
// A tap of that name that exists is never adopted: the error is then
// [fs.ErrExist]. Where the kernel has no tun driver, it is [fs.ErrNotExist].
func OpenTap(name string, queues int) ([]*os.File, error) {
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	files := make([]*os.File, 0, queues)
	for i := range queues {
		f := flags
		if i == 0 {
			f |= unix.IFF_TUN_EXCL
		}
		file, err := openQueue(name, f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open tap %s: queue %d: %w", name, i, err), CloseFiles(files))
		}
		files = append(files, file)
	}
	return files, nil
}

func openQueue(name string, flags uint16) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(flags)
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: tunDevice, Err: err}
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		if errors.Is(err, unix.EBUSY) && flags&unix.IFF_TUN_EXCL != 0 {
			err = fs.ErrExist
		}
		return nil, errors.Join(err, unix.Close(fd))
	}
	// Only now: the runtime's poller can't watch a descriptor without a device.
	return os.NewFile(uintptr(fd), tunDevice), nil
}

// OpenVhost returns n new descriptors of the kernel's vhost-net driver, or
// none and no error where the kernel has no such driver.
func OpenVhost(n int) ([]*os.File, error) {
	files := make([]*os.File, 0, n)
	for range n {
		f, err := os.OpenFile(vhostDevice, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return nil, CloseFiles(files)
		}
		if err != nil {
			return nil, errors.Join(err, CloseFiles(files))
		}
		files = append(files, f)
	}
	return files, nil
}

// CloseFiles closes all of files and returns the errors of those that could
// not be closed.
func CloseFiles(files []*os.File) error {
	var errs error
	for _, f := range files {
		errs = errors.Join(errs, f.Close())
	}
	return errs
}
