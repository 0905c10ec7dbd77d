package rtnl

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// subscription is a socket that gets the kernel's news about some kinds of things.
type subscription struct {
	what string // "links"
	file *os.File
	raw  syscall.RawConn
	buf  *buffer
}

// subscribe subscribes to groups of news (RTNLGRP_*) of the calling thread's namespace.
// The subscription is in force when it returns. So many bytes of news are kept while
// the reader is busy.
func subscribe(what string, size int, groups ...uint) (*subscription, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", what, err)
	}
	sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		sa.Groups |= 1 << (g - 1)
	}
	// A larger buffer makes overruns rare. They are dealt with in any case.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	if err := unix.Bind(fd, sa); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to %s: %w", what, err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "rtnetlink "+what)
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to %s: %w", what, err), file.Close())
	}
	return &subscription{what: what, file: file, raw: raw, buf: new(buffer)}, nil
}

// Close ends the subscription; whoever waits for news gets [os.ErrClosed]. It may be
// called from any goroutine, once.
func (s *subscription) Close() error {
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("unsubscribe from %s: %w", s.what, err)
	}
	return nil
}

// receive reads one datagram of news.
func (s *subscription) receive() (n int, err error) {
	waitErr := s.raw.Read(func(fd uintptr) bool {
		var flags int
		var from unix.Sockaddr
		n, _, flags, from, err = unix.Recvmsg(int(fd), s.buf[:], nil, 0)
		switch sa, ok := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err == nil && flags&unix.MSG_TRUNC != 0:
			err = errTruncated
		case err == nil && (!ok || sa.Pid != 0):
			n = 0 // not from the kernel
		}
		return true
	})
	if waitErr != nil {
		return 0, fmt.Errorf("await news about %s: %w", s.what, os.ErrClosed)
	}
	if err != nil {
		return 0, fmt.Errorf("receive news about %s: %w", s.what, err)
	}
	return n, nil
}
