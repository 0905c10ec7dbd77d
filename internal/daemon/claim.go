package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/unixsock"
)

// claimName is an abstract unix socket: such names belong to a network
// namespace, leave no file, and go with their process.
const claimName = "@brfused"

// claim makes this daemon the only one in its network namespace. Two would take
// each other's taps for garbage. A name that is held by another user's process,
// which could be any, is no reason to stop.
func claim(ctx context.Context, name string, log *slog.Logger) (release func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", name)
	if err == nil {
		return func() { _ = l.Close() }, nil // nobody was let in
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("claim network namespace: %w", err)
	}
	holder, err := holderOf(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("claim network namespace: who holds %s?: %w", name, err)
	}
	if int(holder.Uid) != os.Geteuid() {
		log.Warn("another user's process holds the name by which daemons know of each other", "name", name, "pid", holder.Pid, "uid", holder.Uid)
		return func() {}, nil
	}
	return nil, fmt.Errorf("another brfused, process %d, serves this network namespace: stop it, or run this one in a namespace of its own", holder.Pid)
}

// holderOf returns who listens at a unix socket.
func holderOf(ctx context.Context, name string) (*unix.Ucred, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return unixsock.Peer(c.(*net.UnixConn))
}
