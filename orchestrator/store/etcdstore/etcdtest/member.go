package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/netnsx"
)

// Member is a member of a cluster. It is safe for concurrent use.
type Member struct {
	c               *Cluster
	name, host, dir string
	ns              *netnsx.NS // nil: the program's

	mu   sync.Mutex
	proc *vmlab.Process // guarded by mu; nil before the first start
}

// Endpoint is the HOST:PORT for clients.
func (m *Member) Endpoint() string { return net.JoinHostPort(m.host, clientPort) }

func (m *Member) url() string {
	if m.c.opts.TLS {
		return "https://" + m.Endpoint()
	}
	return "http://" + m.Endpoint()
}

func (m *Member) peerURL() string { return "http://" + net.JoinHostPort(m.host, peerPort) }

// Start starts the member, again with its data after Kill, and returns when it
// serves clients, for which it needs a majority.
func (m *Member) Start(ctx context.Context) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	ready, err := listenReady(filepath.Join(m.dir, "notify"))
	if err != nil {
		return err
	}
	defer ready.Close()
	proc, err := m.spawn(ready.LocalAddr().String())
	if err != nil {
		return err
	}
	if err := await(ctx, ready, proc); err != nil {
		return fmt.Errorf("etcd %s at %s: %w\n%s", m.name, m.host, err, m.Log())
	}
	return nil
}

// spawn starts the process, which says by a datagram to notify when it serves.
func (m *Member) spawn(notify string) (*vmlab.Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	argv := append([]string{"etcd"}, m.arguments()...)
	if m.ns != nil {
		argv = append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), m.ns.FD()), "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // lives until Kill
	log, err := os.OpenFile(m.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	proc, err := vmlab.StartProcess(cmd)
	if err != nil {
		return nil, err
	}
	m.proc = proc
	return proc, nil
}

// listenReady listens as systemd does for the word of a service (sd_notify(3)).
func listenReady(path string) (*net.UnixConn, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
}

// await waits for READY=1.
func await(ctx context.Context, ready *net.UnixConn, proc *vmlab.Process) error {
	got := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ready.Read(buf)
			if err != nil || strings.Contains(string(buf[:n]), "READY=1") {
				got <- err
				return
			}
		}
	}()
	defer ready.SetReadDeadline(time.Now()) //nolint:errcheck // ends the goroutine; the socket is open
	select {
	case err := <-got:
		return err
	case <-proc.Done():
		return fmt.Errorf("it ended: %w", proc.Err())
	case <-ctx.Done():
		return fmt.Errorf("it does not serve: %w", context.Cause(ctx))
	}
}

// Log returns what the member has logged.
func (m *Member) Log() string {
	b, err := os.ReadFile(m.logPath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (m *Member) logPath() string { return filepath.Join(m.dir, "log") }

// Kill ends the member as kill -9 does, and waits until it is gone.
func (m *Member) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc != nil {
		m.proc.Kill()
	}
}

// Pause freezes the member; Resume lets it go on.
func (m *Member) Pause() error { return m.signal(unix.SIGSTOP) }

// Resume ends a Pause.
func (m *Member) Resume() error { return m.signal(unix.SIGCONT) }

func (m *Member) signal(sig unix.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc == nil {
		return os.ErrProcessDone
	}
	return m.proc.Signal(sig)
}
