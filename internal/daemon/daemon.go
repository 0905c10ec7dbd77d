// Package daemon is brfused: it joins the host half, the links to the guests
// and the orchestrator, and serves the public API on a unix socket.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/brfuse/brfuse/internal/unixsock"
)

// Config says how a daemon runs.
type Config struct {
	Socket string // path of the API's unix socket; required
	Group  string // group that may use the socket beside root; default: none
	State  string // path of the database; required
	// PublishPorts are the ports of this host that guests may have published.
	// Default: none.
	PublishPorts PortRange
	Log          *slog.Logger
}

// stopLimit bounds how long running calls may go on after the daemon was told
// to stop.
const stopLimit = 10 * time.Second

// Run serves until ctx ends. Attachments stay: they belong to their pods, not
// to the daemon.
func Run(ctx context.Context, cfg Config) error {
	// First of all: a daemon beside another one would take its taps for garbage.
	release, err := claim(ctx, claimName, cfg.Log)
	if err != nil {
		return err
	}
	defer release()
	// Callers wait until the socket is served.
	l, err := listen(ctx, cfg.Socket, cfg.Group)
	if err != nil {
		return err
	}
	defer l.Close() // the server has closed it, unless the parts could not be made
	p, err := newParts(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.close()
	srv := NewServer(ctx, cfg.Log, p.orch, p)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	cfg.Log.Info("serving", "socket", cfg.Socket, "state", cfg.State)
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", cfg.Socket, err)
	case <-ctx.Done():
	}
	force := time.AfterFunc(stopLimit, srv.Stop)
	srv.GracefulStop()
	force.Stop()
	cfg.Log.Info("stopped")
	return nil
}

// listen makes the socket, for root and the group, if one is named.
func listen(ctx context.Context, path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
	l, err := unixsock.Listen(ctx, path, 0o755)
	if err != nil {
		return nil, err
	}
	if gid < 0 {
		return l, nil
	}
	if err := grant(path, gid); err != nil {
		return nil, errors.Join(fmt.Errorf("socket group %s: %w", group, err), l.Close())
	}
	return l, nil
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("socket group: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("socket group %s: gid %q: %w", name, g.Gid, err)
	}
	return gid, nil
}

// grant lets a group use the socket.
func grant(path string, gid int) error {
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}
