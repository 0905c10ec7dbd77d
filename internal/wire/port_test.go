package wire

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// hungPort returns a file that is hung up until the host opens a path: the
// master of a pseudo terminal, which the kernel treats as a virtio-serial port
// in this.
func hungPort(t *testing.T) (f *os.File, host string) {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		require.NoError(t, err)
		host = "/dev/pts/" + strconv.Itoa(n)
	}))
	once := openHost(t, host) // it hangs up when the last one closes
	require.NoError(t, once.Close())
	return f, host
}

func openHost(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestPortAwaitsItsHost(t *testing.T) {
	noLeaks(t)
	f, host := hungPort(t)
	p := newPort("/dev/vport0p1", slog.New(slog.DiscardHandler))
	p.look = 50 * time.Millisecond // a terminal makes no edge
	opened := make(chan struct{})
	p.open = func(string) (*os.File, error) {
		close(opened) // a second time would panic
		return f, nil
	}
	got := make(chan error, 1)
	go func() {
		_, err := p.Accept(t.Context())
		got <- err
	}()
	await(t, opened, "the port to be opened")
	select {
	case err := <-got:
		require.FailNow(t, "no host", "Accept returned %v without a host", err)
	case <-time.After(300 * time.Millisecond):
	}
	openHost(t, host)
	require.NoError(t, await(t, got, "the port with a host"))
}

func TestPortEndsWithContext(t *testing.T) {
	noLeaks(t)
	f, _ := hungPort(t)
	p := newPort("/dev/vport0p1", slog.New(slog.DiscardHandler))
	p.open = func(string) (*os.File, error) { return f, nil }
	_, err := p.Accept(contextOf(t, 50*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = f.Write([]byte{0})
	require.ErrorIs(t, err, os.ErrClosed)
}

// The port is found with and without udev, held by another agent for a while,
// and each trouble is told once.
func TestPortTroubles(t *testing.T) {
	noLeaks(t)
	var log bytes.Buffer
	f, host := hungPort(t)
	openHost(t, host)
	root := t.TempDir()
	p := newPort(PortName, slog.New(slog.NewTextHandler(&log, nil)))
	p.root = root
	errs := []error{syscall.EBUSY, syscall.EBUSY, os.ErrPermission}
	p.open = func(path string) (*os.File, error) {
		assert.Equal(t, filepath.Join(root, "dev/vport3p2"), path)
		if len(errs) > 0 {
			err := errs[0]
			errs = errs[1:]
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return f, nil
	}
	time.AfterFunc(100*time.Millisecond, func() {
		for dir, name := range map[string]string{"vport3p1": "com.redhat.spice.0\n", "vport3p2": PortName + "\n"} {
			dir := filepath.Join(root, "sys/class/virtio-ports", dir)
			assert.NoError(t, os.MkdirAll(dir, 0o755))
			assert.NoError(t, os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o600))
		}
	})
	conn, err := p.Accept(testContext(t))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	for _, text := range []string{
		"no virtio-serial port named org.brfuse.agent.0: add one to the VM",
		"another process has it, is a second brfuse-agent running?",
		"permission denied: run brfuse-agent as root",
	} {
		n := bytes.Count(log.Bytes(), []byte(text))
		if text[0] == 'p' { // os.ErrPermission has other words
			n = bytes.Count(log.Bytes(), []byte("run brfuse-agent as root"))
		}
		assert.Equal(t, 1, n, "%q in:\n%s", text, log.String())
	}

	link := filepath.Join(root, "dev/virtio-ports", PortName)
	require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o755))
	require.NoError(t, os.WriteFile(link, nil, 0o600))
	path, err := p.find()
	require.NoError(t, err)
	assert.Equal(t, link, path)
}

func TestListenAddresses(t *testing.T) {
	for _, tt := range []struct{ address, want string }{
		{"", PortName},
		{"org.brfuse.agent.1", "org.brfuse.agent.1"},
		{"/dev/vport1p1", "/dev/vport1p1"},
	} {
		l, err := Listen(tt.address, nil)
		require.NoError(t, err)
		require.IsType(t, &port{}, l)
		assert.Equal(t, tt.want, l.(*port).name)
	}
	for _, bad := range []string{"vsock:", "vsock:x", "vsock:1:2", "unix:", "tcp:1", "a/b"} {
		_, err := Listen(bad, nil)
		require.ErrorIs(t, err, vnic.ErrInvalid, bad)
	}
}

func TestListenUnix(t *testing.T) {
	noLeaks(t)
	path := filepath.Join(t.TempDir(), "a.sock")
	for range 2 { // the second time over what a killed agent left
		l, err := Listen("unix:"+path, nil)
		require.NoError(t, err)
		_, err = l.Accept(contextOf(t, 20*time.Millisecond))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ch, err := ParseChannel(path)
		require.NoError(t, err)
		host, err := ch.Dial(testContext(t))
		require.NoError(t, err)
		guest, err := l.Accept(testContext(t))
		require.NoError(t, err)
		require.NoError(t, host.Close())
		_, err = guest.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, guest.Close())
		l.(*sockets).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
	}
}

func TestListenUnixLeavesFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err := Listen("unix:"+path, nil)
	require.ErrorContains(t, err, "listen on "+path)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "mine", string(b))
}

func TestOnlyTheHostMayConnectByVsock(t *testing.T) {
	assert.True(t, fromHost(&vsock.Addr{ContextID: vsock.Host, Port: 99}))
	assert.False(t, fromHost(&vsock.Addr{ContextID: vsock.Local, Port: 99}))
	assert.False(t, fromHost(&vsock.Addr{ContextID: 3, Port: 99}))
	assert.False(t, fromHost(&net.UnixAddr{}))
}

func TestParseChannel(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Channel
		bad  string
	}{
		{"/run/vm/a.sock", Channel{Path: "/run/vm/a.sock"}, ""},
		{"unix:/run/vm/a.sock", Channel{Path: "/run/vm/a.sock"}, ""},
		{"vsock:3:1000", Channel{CID: 3, Port: 1000}, ""},
		{"vsock:2:1000", Channel{}, `channel "vsock:2:1000" is not vsock:CID:PORT with a guest's CID, 3 or more: invalid argument`},
		{"vsock:3", Channel{}, `channel "vsock:3" is not vsock:CID:PORT with a guest's CID, 3 or more: invalid argument`},
		{"vsock:3:99999999999", Channel{}, `channel "vsock:3:99999999999" is not vsock:CID:PORT with a guest's CID, 3 or more: invalid argument`},
		{"a.sock", Channel{}, `channel "a.sock" is neither the absolute path of a unix socket nor vsock:CID:PORT: invalid argument`},
		{"", Channel{}, `channel "" is neither the absolute path of a unix socket nor vsock:CID:PORT: invalid argument`},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseChannel(tt.in)
			assert.Equal(t, tt.want, got)
			if tt.bad != "" {
				require.EqualError(t, err, tt.bad)
				require.ErrorIs(t, err, vnic.ErrInvalid)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	_, err := Channel{Path: path}.Dial(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, err = Channel{Path: path}.Dial(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorContains(t, err, "connect to "+path)
}
