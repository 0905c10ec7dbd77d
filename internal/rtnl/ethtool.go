package rtnl

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Driver tells which driver a link has and which device it is on its bus: for
// a virtio NIC "virtio_net" and its PCI address. Unlike sysfs, this works in
// every namespace (ETHTOOL_GDRVINFO; any socket takes the ioctl). When there is
// no such link, the error is [fs.ErrNotExist].
func (c *Conn) Driver(name string) (driver, bus string, err error) {
	info, err := unix.IoctlGetEthtoolDrvinfo(c.fd, name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", "", nil // a device that has no ethtool operations
	}
	if err != nil {
		return "", "", fmt.Errorf("ask for the driver of %s: %w", name, notExist(err))
	}
	return unix.ByteSliceToString(info.Driver[:]), unix.ByteSliceToString(info.Bus_info[:]), nil
}

// channels is the kernel's struct ethtool_channels.
type channels struct {
	cmd                                         uint32
	maxRx, maxTx, maxOther, maxCombined         uint32
	rxCount, txCount, otherCount, combinedCount uint32
}

// ethtoolReq is the kernel's struct ifreq as SIOCETHTOOL reads it.
type ethtoolReq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the rest of the union
}

// SetQueues makes a link use n queue pairs, or as many as it has if they are
// fewer, and returns how many it uses. A link without adjustable queues is
// [vnic.ErrUnsupported].
func (c *Conn) SetQueues(name string, n int) (int, error) {
	ch := channels{cmd: unix.ETHTOOL_GCHANNELS}
	err := c.ethtool(name, unsafe.Pointer(&ch))
	if err == nil && ch.maxCombined == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		err = vnic.ErrUnsupported
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the queues of %s: %w", name, err)
	}
	want := min(uint32(n), ch.maxCombined)
	if want == ch.combinedCount {
		return int(want), nil
	}
	ch.cmd, ch.combinedCount = unix.ETHTOOL_SCHANNELS, want
	if err := c.ethtool(name, unsafe.Pointer(&ch)); err != nil {
		return 0, fmt.Errorf("set the queues of %s to %d: %w", name, want, err)
	}
	return int(want), nil
}

func (c *Conn) ethtool(name string, data unsafe.Pointer) error {
	req := ethtoolReq{data: data}
	if copy(req.name[:unix.IFNAMSIZ-1], name) < len(name) {
		return unix.ENODEV
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}
