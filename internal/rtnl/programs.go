package rtnl

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Points of a link at which BPF programs may be attached, since Linux 6.6
// (BPF_TCX_INGRESS and BPF_TCX_EGRESS of the kernel).
const (
	tcxIngress = 46
	tcxEgress  = 47
)

// programQuery is the part of the kernel's union bpf_attr that asks for programs.
type programQuery struct {
	target, attachType, flags, attachFlags uint32
	ids                                    uint64
	count                                  uint32
	_                                      uint32
	_                                      [4]uint64
}

// HasTCX tells whether this kernel has such points. Where it can't be asked, for
// want of privileges, it is said to.
func HasTCX() bool {
	const none = 1<<31 - 1 // no link has that index
	_, err := queryPrograms(none, tcxIngress)
	return err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM)
}

// TCXPrograms returns how many BPF programs there are at a link's two points. The
// link is one of the calling thread's namespace. They stay when the link is moved.
func TCXPrograms(index int) (int, error) {
	in, err := queryPrograms(uint32(index), tcxIngress)
	if err == nil {
		var out int
		out, err = queryPrograms(uint32(index), tcxEgress)
		in += out
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the programs of link %d: %w", index, err)
	}
	return in, nil
}

func queryPrograms(index, point uint32) (int, error) {
	q := programQuery{target: index, attachType: point}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&q)), unsafe.Sizeof(q))
	switch {
	case errors.Is(errno, unix.ENOENT): // there is no list of them
		return 0, nil
	case errno != 0:
		return 0, errno
	}
	return int(q.count), nil
}
