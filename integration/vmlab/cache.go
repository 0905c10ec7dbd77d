package vmlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that another process holds is tried again:
// flock(2) has no deadline of its own.
const lockRetry = 50 * time.Millisecond

func cacheDir(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv("BRFUSE_CACHE")
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find cache folder: %w; set BRFUSE_CACHE", err)
		}
		dir = filepath.Join(base, "brfuse")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	return filepath.Abs(dir)
}

// lock takes the exclusive lock of a file, between processes and within one,
// and returns what releases it.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for lock %s: %w", path, ctx.Err())
		case <-time.After(lockRetry):
		}
	}
}

// output runs a command in dir and returns what it printed. The error has what
// it complained about.
func output(ctx context.Context, dir string, argv ...string) (string, error) {
	return runTool(exec.CommandContext(ctx, argv[0], argv[1:]...), dir)
}

func runTool(cmd *exec.Cmd, dir string) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, tail(stderr.String(), 2000))
	}
	return stdout.String(), nil
}

// tail returns the last n bytes of s, trimmed.
func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-n):]
}
