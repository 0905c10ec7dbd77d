// Package unixsock makes the unix sockets that local programs find by a path, and
// tells who is at their other end.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Listener listens on a socket. Its Close removes the socket's file.
type Listener struct {
	*net.UnixListener
	closing func() error
}

// Close implements [net.Listener]. It may be repeated, which changes nothing.
func (l *Listener) Close() error { return l.closing() }

// dialLimit bounds the look at who listens on a socket.
const dialLimit = 2 * time.Second

// Listen listens on a socket that only the caller's user can connect to. Its folder
// is made when it isn't there, with this mode. A socket that nobody listens on any
// more is replaced; one on which somebody does is a [vnic.ErrInUse], and anything
// else an [fs.ErrExist].
func Listen(ctx context.Context, path string, dir os.FileMode) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), dir); err != nil {
		return nil, fmt.Errorf("make folder of socket: %w", err)
	}
	// It is made under another name: who finds the socket can use it, and nobody else
	// ever could.
	fresh := path + ".new"
	for _, old := range []string{path, fresh} {
		if err := removeStale(ctx, old); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	var config net.ListenConfig
	nl, err := config.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, err
	}
	ul := nl.(*net.UnixListener)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), ul.Close())
	}
	ul.SetUnlinkOnClose(false) // it has another name now
	return &Listener{UnixListener: ul, closing: sync.OnceValue(func() error {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, ul.Close())
	})}, nil
}

// removeStale removes a socket that nobody listens on, if it is there.
func removeStale(ctx context.Context, path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is no socket; remove it or choose another path: %w", path, fs.ErrExist)
	}
	c, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("another process serves it; stop that one first: %w", vnic.ErrInUse), c.Close())
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED): // such as one that is too busy to take us
		return fmt.Errorf("who serves it?: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace stale socket: %w", err)
	}
	return nil
}

// Peer returns who is at the other end of a connection: the process that made it,
// whoever uses it now.
func Peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask for peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("ask for peer: %w", err)
	}
	if credErr != nil {
		return nil, fmt.Errorf("ask for peer: %w", credErr)
	}
	return cred, nil
}
