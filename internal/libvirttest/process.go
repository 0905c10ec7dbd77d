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

// killAndWait ends a process by SIGKILL and returns once it has ended.
func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	limit := time.Now().Add(killLimit)
	if t, ok := ctx.Deadline(); ok && t.Before(limit) {
		limit = t
	}
	for {
		left := max(time.Until(limit), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("await the end of process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("await the end of process %d: %w", pid, os.ErrDeadlineExceeded)
		}
		return nil
	}
}

// PID returns libvirtd's process.
func (d *Daemon) PID() (int, error) { return d.filePID("libvirtd.pid") }
