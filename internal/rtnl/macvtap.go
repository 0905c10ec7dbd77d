package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AddMacvtap asks for a macvtap of another link in bridge mode: those of one link
// reach each other. It is down. Where the kernel has no such links the error is
// [unix.EOPNOTSUPP]; where something else takes the other link's frames, as a bridge
// does those of its ports, [unix.EBUSY].
func AddMacvtap(l NewLink, lower int) Request {
	r := l.add("macvtap", func(data *nl.RtAttr) {
		const bridgeMode = 4 // MACVLAN_MODE_BRIDGE of the kernel's if_link.h
		data.AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(bridgeMode))
	})
	r.msg.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(lower))))
	return r
}

// ProbeKind asks whether the kernel has links of a kind that needs another link. The
// answer is [unix.EOPNOTSUPP] when it doesn't; nothing is made.
func ProbeKind(kind string) Request {
	// Without a link below or what the kind wants to be told, none can be made.
	return NewLink{Name: "brfuse-probe"}.add(kind, nil).Tolerate(unix.EINVAL, unix.ENODEV)
}

// SetAllMulticast asks to have a link receive frames for all groups, without having
// been told of each.
func SetAllMulticast(index int) Request {
	return SetLink(index, Change{Flags: unix.IFF_ALLMULTI, Mask: unix.IFF_ALLMULTI})
}

// OpenMacvtap opens queues of a macvtap. The descriptors are close-on-exec and
// non-blocking, and their frames have virtio-net headers. The link stays when they are
// closed. The calling thread is in its namespace.
//
// The kernel names the character device by the link's index. In a namespace other than
// the first one, that may be another link's, and a node of its own is made for as long
// as it takes to open it, which needs CAP_MKNOD.
func OpenMacvtap(l HostLink, queues int) ([]*os.File, error) {
	dev, err := macvtapDevice(l)
	if err != nil {
		return nil, fmt.Errorf("open macvtap %s: %w", l.Name, err)
	}
	files := make([]*os.File, 0, queues)
	for i := range queues {
		f, err := openMacvtapQueue(l, dev, queues > 1)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open macvtap %s: queue %d: %w", l.Name, i, err), CloseFiles(files))
		}
		files = append(files, f)
	}
	return files, nil
}

// macvtapDevice returns the number of a macvtap's character device. What sysfs shows of
// links is what its mount's namespace has, but its list of devices has them all, with
// paths that tell link and index.
func macvtapDevice(l HostLink) (uint64, error) {
	const devices = "/sys/dev/char"
	entries, err := os.ReadDir(devices)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(devices, e.Name()))
		if err != nil || filepath.Base(target) != "tap"+strconv.Itoa(l.Index) || !strings.Contains(target, "/net/"+l.Name+"/") {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(e.Name(), "%d:%d", &major, &minor); err != nil {
			return 0, fmt.Errorf("device %q: %w", e.Name(), err)
		}
		return unix.Mkdev(major, minor), nil
	}
	return 0, fmt.Errorf("its character device is not in %s: %w", devices, fs.ErrNotExist)
}

// openMacvtapQueue opens the device by the node that there is for it, or by a new one.
func openMacvtapQueue(l HostLink, dev uint64, many bool) (_ *os.File, err error) {
	path := "/dev/tap" + strconv.Itoa(l.Index)
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != dev {
		path = "/dev/" + l.Name
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(dev)); err != nil {
			return nil, &fs.PathError{Op: "mknod", Path: path, Err: err}
		}
		defer func() { err = errors.Join(err, unix.Unlink(path)) }()
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := setMacvtapFlags(fd, many); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// setMacvtapFlags says what the frames of a queue look like.
func setMacvtapFlags(fd int, many bool) error {
	req, err := unix.NewIfreq("macvtap") // the kernel looks at the flags only
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if many {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("set flags: %w", err)
	}
	return nil
}
