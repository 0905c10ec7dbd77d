package site

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/failpoint"
)

// startLimit bounds how long a daemon may take until it serves.
const startLimit = 30 * time.Second

// daemon is a running brfused.
type daemon struct {
	proc *vmlab.Process
	log  *os.File
}

// StartDaemon starts brfused with some failpoints and returns when it serves.
func (s *Site) StartDaemon(ctx context.Context, failpoints ...string) error {
	log, err := os.OpenFile(s.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	argv := append([]string{s.brfused, "--socket", s.Socket(), "--log-level", s.logLevel}, s.DaemonArgs...)
	if !slices.Contains(s.DaemonArgs, "--store") {
		argv = append(argv, "--state", s.State())
	}
	if s.resolv != "" { // in a mount namespace of its own
		argv = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, s.resolv}, argv...)
	}
	cmd := s.Net.Command(argv...)
	cmd.Env = append(os.Environ(), failpoint.Env+"="+strings.Join(failpoints, ","))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, w
	proc, err := vmlab.StartProcess(cmd)
	_ = w.Close() // the daemon has its own
	if err != nil {
		return errors.Join(err, r.Close(), log.Close())
	}
	serving := make(chan struct{})
	go follow(r, log, serving)
	s.daemon = &daemon{proc: proc, log: log}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-serving:
		return nil
	case <-proc.Done():
		return fmt.Errorf("brfused ended before it served: %w: %s", proc.Err(), s.LogTail())
	case <-ctx.Done():
		s.KillDaemon()
		return fmt.Errorf("await brfused to serve: %w: %s", ctx.Err(), s.LogTail())
	}
}

// follow copies the daemon's log, to its end since a daemon that can't log dies,
// and tells when it serves.
func follow(r io.ReadCloser, log io.Writer, serving chan<- struct{}) {
	defer r.Close()
	told := false
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		fmt.Fprint(log, line)
		if !told && strings.Contains(line, "msg=serving") {
			told = true
			close(serving)
		}
		if err != nil {
			return
		}
	}
}

// LogTail returns the end of the daemon's log.
func (s *Site) LogTail() string {
	raw, err := os.ReadFile(s.DaemonLog())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-8000):])
}

// DaemonPID returns the process id of the daemon.
func (s *Site) DaemonPID() int { return s.daemon.proc.PID() }

// DaemonDone is closed when the daemon has ended.
func (s *Site) DaemonDone() <-chan struct{} { return s.daemon.proc.Done() }

// KillDaemon kills the daemon as kill -9 does, if it runs.
func (s *Site) KillDaemon() {
	s.mu.Lock()
	if s.conn != nil {
		_ = s.conn.Close() // the next client makes a new one
		s.conn = nil
	}
	s.mu.Unlock()
	if s.daemon != nil {
		s.daemon.proc.Kill()
		_ = s.daemon.log.Close() // what was logged is written
		s.daemon = nil
	}
}
