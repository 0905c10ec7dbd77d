package vmlab

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// process is a running QEMU.
type process interface {
	PID() int
	Done() <-chan struct{} // closed when it has ended
	Kill()                 // as kill -9 does; returns when it is gone
}

// foreign is a process that is no child of this program.
type foreign struct {
	pid  int
	fd   int // pidfd
	done chan struct{}
}

// peerProcess returns the process that made the other end of a unix socket.
func peerProcess(conn *net.UnixConn) (*foreign, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, fmt.Errorf("ask who connected: %w", credErr)
	}
	fd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", cred.Pid, err)
	}
	p := &foreign{pid: int(cred.Pid), fd: fd, done: make(chan struct{})}
	go p.watch()
	return p, nil
}

// watch waits for the process's end.
func (p *foreign) watch() {
	defer close(p.done)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, -1) //nolint:gosec // a descriptor is small
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Close(p.fd)
}

func (p *foreign) PID() int              { return p.pid }
func (p *foreign) Done() <-chan struct{} { return p.done }

func (p *foreign) Kill() {
	select {
	case <-p.done: // the number may be another's by now
		return
	default:
	}
	if proc, err := os.FindProcess(p.pid); err == nil {
		_ = proc.Kill() // ended already: what is wanted
	}
	<-p.done
}
