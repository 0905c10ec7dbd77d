package rtnl

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Monitor tells of changes to the links of one namespace. It loses none:
// when the kernel had to drop some, [Monitor.Next] returns all links anew.
type Monitor struct {
	conn   *Conn // for dumps
	file   *os.File
	raw    syscall.RawConn
	buf    *buffer
	resync bool
}

// Update is some news about links, in the order in which they happened.
type Update struct {
	// Full says that Changes holds all links there are, and that those not in
	// it are gone. The first update is full.
	Full    bool
	Changes []LinkChange
}

// LinkChange is a link that came or changed, or one that went.
type LinkChange struct {
	Link Link
	Gone bool // deleted, or moved to another namespace
	// Moved says that it was moved there.
	Moved bool
}

// monitorBuffer is the size of the socket's receive buffer in bytes: events of
// about 1 KiB are kept while the reader is busy.
const monitorBuffer = 1 << 20

// NewMonitor subscribes to the links of the calling thread's namespace. The
// subscription is in force when it returns. It uses conn, which must be of the
// same namespace, and doesn't close it.
func NewMonitor(conn *Conn) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to links: %w", err), unix.Close(fd))
	}
	// A larger buffer makes overruns rare. They are dealt with in any case.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, monitorBuffer)
	file := os.NewFile(uintptr(fd), "rtnetlink links")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to links: %w", err), file.Close())
	}
	return &Monitor{conn: conn, file: file, raw: raw, buf: new(buffer), resync: true}, nil
}

// Close ends the subscription; a waiting Next returns [os.ErrClosed]. It may
// be called from any goroutine, once.
func (m *Monitor) Close() error {
	if err := m.file.Close(); err != nil {
		return fmt.Errorf("unsubscribe from links: %w", err)
	}
	return nil
}

// Next waits for news and returns them. It is called by one goroutine. After
// an error other than [os.ErrClosed] it may be called again and returns all
// links.
func (m *Monitor) Next() (Update, error) {
	for {
		if m.resync {
			return m.full()
		}
		n, err := m.receive()
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, errTruncated) {
			m.resync = true
			continue
		}
		if err != nil {
			return Update{}, err
		}
		u, err := parseUpdate(m.buf[:n])
		if err != nil {
			m.resync = true
			return Update{}, err
		}
		if len(u.Changes) > 0 {
			return u, nil
		}
	}
}

// full returns all links. What is queued is older than the dump and is thrown
// away: the event that supersedes it may be one that the kernel dropped.
func (m *Monitor) full() (Update, error) {
	if err := m.drain(); err != nil {
		return Update{}, err
	}
	links, err := m.conn.Links()
	if err != nil {
		return Update{}, err
	}
	m.resync = false
	u := Update{Full: true}
	for _, l := range links {
		u.Changes = append(u.Changes, LinkChange{Link: l})
	}
	return u, nil
}

// drain reads until nothing is queued.
func (m *Monitor) drain() error {
	err := m.raw.Control(func(fd uintptr) {
		for {
			_, _, _, _, err := unix.Recvmsg(int(fd), m.buf[:], nil, 0)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return // EAGAIN: empty
			}
		}
	})
	if err != nil {
		return fmt.Errorf("drain link events: %w", os.ErrClosed)
	}
	return nil
}

var errTruncated = errors.New("link event is too long")

func (m *Monitor) receive() (n int, err error) {
	waitErr := m.raw.Read(func(fd uintptr) bool {
		var flags int
		var from unix.Sockaddr
		n, _, flags, from, err = unix.Recvmsg(int(fd), m.buf[:], nil, 0)
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
		return 0, fmt.Errorf("await link events: %w", os.ErrClosed)
	}
	if err != nil {
		return 0, fmt.Errorf("receive link events: %w", err)
	}
	return n, nil
}

func parseUpdate(b []byte) (Update, error) {
	var u Update
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return u, fmt.Errorf("parse link events: %w", err)
	}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
			continue
		}
		if len(m.Data) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
			continue // a bridge port's view of a link, which is no link that came or went
		}
		l, err := parseLink(m.Data)
		if err != nil {
			return u, err
		}
		gone := m.Header.Type == unix.RTM_DELLINK
		u.Changes = append(u.Changes, LinkChange{Link: l, Gone: gone, Moved: gone && l.moved})
	}
	return u, nil
}
