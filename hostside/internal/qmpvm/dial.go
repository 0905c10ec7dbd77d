package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// greetingLimit bounds the wait for QEMU's greeting. QEMU greets at once unless
// another client holds the socket.
const greetingLimit = 5 * time.Second

var errNoGreeting = errors.New("no greeting")

// DialConn connects to a QMP socket. Errors name the path and the remedy:
// [vnic.ErrVMGone] when nobody listens there, then also [fs.ErrNotExist] or
// ECONNREFUSED, or when the connection ended before QEMU had answered;
// [fs.ErrPermission]; and [vnic.ErrInUse] when the greeting doesn't come within
// ctx or five seconds: most likely another client has the socket.
func DialConn(ctx context.Context, path string, log *slog.Logger) (*Conn, error) {
	c, sub, err := dial(ctx, path, log)
	if err != nil {
		return nil, err
	}
	sub.Close()
	return c, nil
}

func dial(ctx context.Context, path string, log *slog.Logger) (*Conn, *Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingLimit)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, nil, dialError(path, err)
	}
	c, sub, err := open(ctx, nc, path, log)
	if err != nil {
		return nil, nil, dialError(path, err)
	}
	return c, sub, nil
}

func dialError(path string, err error) error {
	arg := fmt.Sprintf("`-qmp unix:%s,server=on,wait=off`", path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("dial qmp %s: no such socket, start QEMU with %s: %w: %w", path, arg, vnic.ErrVMGone, fs.ErrNotExist)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("dial qmp %s: nobody listens, start QEMU again with %s: %w: %w",
			path, arg, vnic.ErrVMGone, syscall.ECONNREFUSED)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("dial qmp %s: give the daemon's user write access to the socket and search access to its folders: %w",
			path, fs.ErrPermission)
	case errors.Is(err, errNoGreeting):
		return fmt.Errorf("dial qmp %s: no greeting, another client holds the socket, or QEMU is stopped; give brfuse a socket of its own, a second `-qmp`: %w",
			path, vnic.ErrInUse)
	}
	return fmt.Errorf("dial qmp %s: %w", path, err)
}
