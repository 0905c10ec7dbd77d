package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

const (
	// How often a port is looked for that is not there, or held by another
	// process: longer each time.
	portWaitMin = 10 * time.Millisecond
	portWaitMax = 500 * time.Millisecond
	// portLook is how often an open port is looked at that has no host. The kernel
	// wakes those who poll when a host connects, so this is but a safety net.
	portLook = 5 * time.Second
)

// port is a virtio-serial port of the guest.
type port struct {
	name string // or the absolute path of its device
	log  *slog.Logger
	root string        // of /dev and /sys; tests have their own
	look time.Duration // portLook, or a test's
	open func(path string) (*os.File, error)
}

func newPort(name string, log *slog.Logger) *port {
	return &port{name: name, log: log, root: "/", look: portLook, open: openPort}
}

func openPort(path string) (*os.File, error) {
	// Non-blocking, so that the runtime polls it and Close makes Read return.
	return os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
}

// Accept opens the port anew, which makes the kernel drop what it has received,
// and waits until a host is connected.
func (p *port) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	wait := newWaiter()
	defer wait.stop()
	var told string
	for {
		f, err := p.try(ctx)
		switch {
		case err == nil:
			return f, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err.Error() != told:
			told = err.Error()
			p.log.Warn("channel", "port", p.name, "error", err)
		}
		if err := wait.next(ctx); err != nil {
			return nil, err
		}
	}
}

// Close has nothing to close: connections are closed by whom they were given to.
func (p *port) Close() error { return nil }

// try opens the port and waits as long as nothing but a host is missing.
func (p *port) try(ctx context.Context) (*os.File, error) {
	path, err := p.find()
	if err != nil {
		return nil, err
	}
	f, err := p.open(path)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return nil, fmt.Errorf("open %s: %w: another process has it, is a second brfuse-agent running?", path, syscall.EBUSY)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open %s: %w: run brfuse-agent as root", path, fs.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("open channel: %w", err)
	}
	if err := awaitHost(ctx, f, p.look); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("wait for a host on %s: %w", path, err)
	}
	return f, nil
}

// find returns the path of the port's device, with and without udev's link.
func (p *port) find() (string, error) {
	if filepath.IsAbs(p.name) {
		return p.name, nil
	}
	link := filepath.Join(p.root, "dev/virtio-ports", p.name)
	if _, err := os.Stat(link); err == nil {
		return link, nil
	}
	names, err := filepath.Glob(filepath.Join(p.root, "sys/class/virtio-ports/*/name"))
	if err != nil {
		return "", fmt.Errorf("find port: %w", err)
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == p.name {
			return filepath.Join(p.root, "dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("no virtio-serial port named %s: add one to the VM: %w", p.name, vnic.ErrUnsupported)
}

// awaitHost returns when a host is connected. As long as none is, reads return
// EOF at once and the port polls as hung up; but the runtime polls for edges, and
// the kernel makes one when a host connects (handle_control_message in
// drivers/char/virtio_console.c).
func awaitHost(ctx context.Context, f *os.File, look time.Duration) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		if err := f.SetReadDeadline(time.Now().Add(look)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var there bool
		var herr error
		err := raw.Read(func(fd uintptr) bool {
			there, herr = hostThere(int(fd))
			return there || herr != nil
		})
		switch {
		case there && stop():
			return f.SetReadDeadline(time.Time{})
		case herr != nil:
			return herr
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
}

// hostThere asks the kernel whether a host is connected. It fails when the port
// has been unplugged.
func hostThere(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	_, err := unix.Poll(fds, 0)
	switch {
	case errors.Is(err, unix.EINTR):
		return false, nil // look again later
	case err != nil:
		return false, err
	case fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0:
		return true, nil
	}
	if _, err := unix.Read(fd, nil); errors.Is(err, unix.ENODEV) {
		return false, err
	}
	return false, nil
}

// waiter waits longer each time.
type waiter struct {
	timer *time.Timer
	delay time.Duration
}

func newWaiter() *waiter {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &waiter{timer: t, delay: portWaitMin}
}

func (w *waiter) next(ctx context.Context) error {
	w.timer.Reset(w.delay)
	w.delay = min(2*w.delay, portWaitMax)
	select {
	case <-w.timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *waiter) stop() { w.timer.Stop() }
