package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attr is room for the kernel's union bpf_attr.
type attr [128]byte

func (a *attr) u32(at int, v uint32) { binary.NativeEndian.PutUint32(a[at:], v) }

func (a *attr) ptr(at int, p unsafe.Pointer) {
	binary.NativeEndian.PutUint64(a[at:], uint64(uintptr(p)))
}

func bpf(cmd int, a *attr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

// pinXDP pins an XDP program that passes all frames at path. With a link's name it
// pins what holds the program at that link, in the namespace where it runs.
func pinXDP(path, link string) error {
	fd, err := loadXDP()
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	if link != "" {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		var a attr
		a.u32(0, uint32(fd))
		a.u32(4, uint32(l.Index))
		a.u32(8, unix.BPF_XDP)
		if fd, err = bpf(unix.BPF_LINK_CREATE, &a); err != nil {
			return fmt.Errorf("make bpf_link: %w", err)
		}
	}
	name := append([]byte(path), 0)
	var a attr
	a.ptr(0, unsafe.Pointer(&name[0]))
	a.u32(8, uint32(fd))
	_, err = bpf(unix.BPF_OBJ_PIN, &a)
	runtime.KeepAlive(name)
	if err != nil {
		return fmt.Errorf("pin at %s: %w", path, err)
	}
	return nil
}

func loadXDP() (int, error) {
	program := []uint64{
		0x00000002_0000_00b7, // r0 = XDP_PASS
		0x0000000000000095,   // exit
	}
	license := []byte("GPL\x00")
	var a attr
	a.u32(0, unix.BPF_PROG_TYPE_XDP)
	a.u32(4, uint32(len(program)))
	a.ptr(8, unsafe.Pointer(&program[0]))
	a.ptr(16, unsafe.Pointer(&license[0]))
	fd, err := bpf(unix.BPF_PROG_LOAD, &a)
	for err == unix.EAGAIN { //nolint:errorlint // a signal came: one of Go's own
		fd, err = bpf(unix.BPF_PROG_LOAD, &a)
	}
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	return fd, err
}
