package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/internal/labproto"
	"github.com/brfuse/brfuse/internal/netnsx"
)

// lateOutput is how long output is still taken after a command has ended while
// something that it started holds its pipes open.
const lateOutput = time.Second

// runCommand runs a command to its end, or kills it and all of its session
// when ctx ends.
func runCommand(ctx context.Context, req labproto.Request) (labproto.Reply, error) {
	var rep labproto.Reply
	if len(req.Argv) == 0 {
		return rep, errors.New("no command")
	}
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	cmd.Env = append(os.Environ(), req.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(req.Stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = lateOutput
	if err := startIn(req.Netns, cmd); err != nil {
		return rep, err
	}
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return rep, err
	}
	rep.Stdout, rep.Stderr = stdout.kept, stderr.kept
	rep.Truncated = stdout.cut || stderr.cut
	rep.Code = exitCode(cmd.ProcessState)
	return rep, nil
}

// startIn starts cmd in a network namespace; "" is the guest's first one.
func startIn(netns string, cmd *exec.Cmd) error {
	if netns == "" {
		return cmd.Start()
	}
	ns, err := netnsx.Open(netns)
	if err != nil {
		return err
	}
	return errors.Join(ns.Do(cmd.Start), ns.Close())
}

// exitCode is a shell's view of how a process ended.
func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// limited keeps the first MaxOutput bytes.
type limited struct {
	kept []byte
	cut  bool
}

func (l *limited) Write(b []byte) (int, error) {
	room := min(labproto.MaxOutput-len(l.kept), len(b))
	l.kept = append(l.kept, b[:room]...)
	l.cut = l.cut || room < len(b)
	return len(b), nil
}

// background is a command that was started and not waited for.
type background struct {
	done chan struct{} // closed when it has ended
	code int           // valid then
}

// start starts a command with its output appended to a file in logDir.
func (s *server) start(req labproto.Request) (int, error) {
	argv := req.Argv
	if len(argv) == 0 {
		return 0, errors.New("no command")
	}
	log := filepath.Join(logDir, filepath.Base(cmp.Or(req.Log, filepath.Base(argv[0])+".log")))
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives the request
	cmd.Env = append(os.Environ(), req.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startIn(req.Netns, cmd); err != nil {
		return 0, err
	}
	b := &background{done: make(chan struct{})}
	s.mu.Lock()
	s.started[cmd.Process.Pid] = b
	s.mu.Unlock()
	go func() {
		defer close(b.done)
		err := cmd.Wait()
		b.code = exitCode(cmd.ProcessState)
		fmt.Printf("labserve: %s ended: code %d: %v\n", argv[0], b.code, err)
	}()
	return cmd.Process.Pid, nil
}

// wait waits for the end of a command that start has started.
func (s *server) wait(ctx context.Context, pid int) (int, error) {
	s.mu.Lock()
	b, ok := s.started[pid]
	s.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("pid %d was not started here", pid)
	}
	select {
	case <-b.done:
		return b.code, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func putFile(req labproto.Request) error {
	flags := os.O_WRONLY
	if req.Offset == 0 {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(req.Path, flags, os.FileMode(req.Mode).Perm())
	if err != nil {
		return err
	}
	_, err = f.WriteAt(req.Data, req.Offset)
	return errors.Join(err, f.Close())
}

func getFile(req labproto.Request) (data []byte, eof bool, err error) {
	f, err := os.Open(req.Path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if _, err := f.Seek(req.Offset, io.SeekStart); err != nil {
		return nil, false, err
	}
	data, err = io.ReadAll(io.LimitReader(f, labproto.Chunk))
	return data, len(data) < labproto.Chunk, err
}
