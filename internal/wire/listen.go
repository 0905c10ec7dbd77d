package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/brfuse/brfuse/vnic"
)

// Listener is where an agent awaits its host.
type Listener interface {
	// Accept returns a fresh connection once a host is there. The one before must
	// be closed. It fails when ctx ends, or for good.
	Accept(ctx context.Context) (io.ReadWriteCloser, error)
	// Close ends the listener, not its connections.
	Close() error
}

// Listen opens an agent's end of a channel: the name of a virtio-serial port
// (empty: [PortName]), the absolute path of its device, "vsock:PORT", or
// "unix:PATH" for tests. A port need not exist yet. A nil log discards.
func Listen(address string, log *slog.Logger) (Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if address == "" {
		address = PortName
	}
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case scheme == "unix" && rest != "":
		return listenUnix(rest)
	case scheme == "vsock":
		return listenVsock(rest)
	case filepath.IsAbs(address):
		return newPort(address, log), nil
	case strings.ContainsAny(address, "/:"):
		return nil, fmt.Errorf("channel %q is neither a port's name, a device's path, vsock:PORT nor unix:PATH: %w", address, vnic.ErrInvalid)
	}
	return newPort(address, log), nil
}

func listenUnix(path string) (Listener, error) {
	// Of an agent before this one. A file that is no socket is somebody else's.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &sockets{Listener: l, deadline: l.SetDeadline, from: func(net.Addr) bool { return true }}, nil
}

// anyCID lets a listener bind before the guest knows its own CID.
const anyCID = 0xffffffff

func listenVsock(port string) (Listener, error) {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("channel vsock:%s: the port is not a number: %w", port, vnic.ErrInvalid)
	}
	l, err := vsock.ListenContextID(anyCID, uint32(n), nil)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", n, err)
	}
	return &sockets{Listener: l, deadline: l.SetDeadline, from: fromHost}, nil
}

// fromHost tells the host from processes of the guest itself.
func fromHost(a net.Addr) bool {
	v, ok := a.(*vsock.Addr)
	return ok && v.ContextID == vsock.Host
}

// sockets is a Listener over a socket.
type sockets struct {
	net.Listener
	deadline func(time.Time) error
	from     func(net.Addr) bool // who may connect
}

func (s *sockets) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := s.deadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.deadline(time.Unix(1, 0)) })
	defer stop()
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return nil, because(ctx, fmt.Errorf("accept: %w", err))
		}
		if s.from(conn.RemoteAddr()) {
			return conn, nil
		}
		_ = conn.Close()
	}
}
