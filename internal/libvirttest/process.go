package libvirttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hostPID finds the process that has a number in the daemon's namespace.
func (d *Daemon) hostPID(inner int) (int, error) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", d.init.Process.Pid))
	if err != nil {
		return 0, err
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		if s, err := os.Readlink(link); err != nil || s != space {
			continue // another's, or it has just ended
		}
		dir := filepath.Dir(filepath.Dir(link))
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		if fields := strings.Fields(line); len(fields) > 1 && fields[len(fields)-1] == strconv.Itoa(inner) {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("process %d of libvirtd's namespace: %w", inner, os.ErrProcessDone)
}

// filePID returns the process whose number stands in a file of the daemon's /run.
func (d *Daemon) filePID(name string) (int, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, "run", name))
	if err != nil {
		return 0, err
	}
	inner, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return d.hostPID(inner)
}

// process is one that runs or has just ended. It isn't a child.
type process struct {
	pid, fd int
	file    *os.File // fd's, for the runtime's poller
}

// process opens libvirtd's. The error is os.ErrProcessDone when it doesn't run.
func (d *Daemon) process() (*process, error) {
	pid, err := d.PID()
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", os.ErrProcessDone, err) // not started yet, or it ended in peace
	}
	if err != nil {
		return nil, err
	}
	return openProcess(pid)
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open process %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid, fd, os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (p *process) close() { _ = p.file.Close() } // nothing is written

// await returns when the process has ended.
func (p *process) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("await the end of process %d: %w", p.pid, err)
	}
	var failed error
	err = raw.Read(func(uintptr) bool {
		var ended bool
		ended, failed = p.ended()
		return ended || failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("await the end of process %d: %w", p.pid, err)
	}
	return nil
}

func (p *process) ended() (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// killAndWait ends a process by SIGKILL and returns once it has ended.
func killAndWait(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	p, err := openProcess(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return p.await(ctx)
}

// PID returns libvirtd's process.
func (d *Daemon) PID() (int, error) { return d.filePID("libvirtd.pid") }
