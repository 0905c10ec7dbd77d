package qmptest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// QEMU is a running qemu-system-x86_64.
type QEMU struct {
	// Path is the socket of its QMP monitor.
	Path string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// StartQEMU starts an emulated machine without firmware having run (-S), with a
// QMP socket of its own beside what args make. It ends with the test. Without
// QEMU the test is skipped, and fails in CI.
func StartQEMU(tb testing.TB, args ...string) *QEMU {
	tb.Helper()
	binary, err := exec.LookPath("qemu-system-x86_64")
	if err != nil && os.Getenv("CI") == "" {
		tb.Skip("qemu-system-x86_64 is not installed")
	}
	require.NoError(tb, err)
	q := &QEMU{Path: SocketPath(tb), done: make(chan struct{})}
	// QEMU is given the listening socket, so that a dial succeeds at once, and
	// the greeting comes when it is ready.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: q.Path})
	require.NoError(tb, err)
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	require.NoError(tb, err)
	require.NoError(tb, l.Close())
	args = append([]string{
		"-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64", "-S",
		"-chardev", "socket,id=test-qmp,fd=3,server=on,wait=off", "-mon", "chardev=test-qmp,mode=control",
	}, args...)
	var out bytes.Buffer
	q.cmd = exec.Command(binary, args...) //nolint:noctx // it is ended by kill and awaited
	q.cmd.ExtraFiles = []*os.File{f}
	q.cmd.Stdout, q.cmd.Stderr = &out, &out
	require.NoError(tb, q.cmd.Start())
	require.NoError(tb, f.Close())
	go func() {
		_ = q.cmd.Wait() // it is always killed
		close(q.done)
	}()
	tb.Cleanup(func() {
		q.Kill()
		if tb.Failed() {
			tb.Logf("qemu said: %s", out.String())
		}
	})
	return q
}

// Kill ends the process by SIGKILL and waits for its end.
func (q *QEMU) Kill() {
	_ = q.cmd.Process.Kill() // it may have ended by itself
	<-q.done
}

// AwaitEnd waits until the process has ended by itself.
func (q *QEMU) AwaitEnd(tb testing.TB) {
	tb.Helper()
	select {
	case <-q.done:
	case <-time.After(endLimit):
		require.Fail(tb, "QEMU still runs")
	}
}

// endLimit bounds AwaitEnd.
const endLimit = 20 * time.Second
