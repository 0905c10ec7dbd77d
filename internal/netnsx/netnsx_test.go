package netnsx

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
}

func newNS(t *testing.T) *NS {
	t.Helper()
	ns, err := New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return ns
}

func TestPath(t *testing.T) {
	tests := []struct{ name, ref, want string }{
		{"name", "web", "/run/netns/web"},
		{"name with digits", "web-1", "/run/netns/web-1"},
		{"path", "/var/run/docker/netns/abc", "/var/run/docker/netns/abc"},
		{"pid", "4711", "/proc/4711/ns/net"},
		{"pod of kubernetes", "default/web", ""},
		{"way out", "..", ""},
		{"empty", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Path(tt.ref)
			assert.Equal(t, tt.want, got)
			if tt.want == "" {
				require.ErrorIs(t, err, vnic.ErrUnknownPod)
				assert.ErrorContains(t, err, "name one that `ip netns list` shows in the vm")
			}
		})
	}
}

func TestOpenUnknown(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	sock := filepath.Join(dir, "sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	require.NoError(t, err)
	defer ln.Close()
	tests := []struct{ name, ref, text string }{
		{"name", "no-such-pod", "no such file or directory"},
		{"pid", "4194304", "no such file or directory"}, // above the largest
		{"path", dir + "/none", "no such file or directory"},
		{"file", file, "not a network namespace"},
		{"pipe doesn't block", fifo, "not a network namespace"},
		{"socket", sock, "no such device or address"},
		{"other kind of namespace", "/proc/self/ns/mnt", "not a network namespace"},
		{"below a file", file + "/x", "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(tt.ref)
			require.ErrorIs(t, err, vnic.ErrUnknownPod)
			require.ErrorContains(t, err, `open network namespace "`+tt.ref+`": `)
			require.ErrorContains(t, err, tt.text)
			assert.ErrorContains(t, err, "or give its absolute path or the id of a process in it")
		})
	}
}

func TestIntegrationDo(t *testing.T) {
	needRoot(t)
	home, err := Current()
	require.NoError(t, err)
	defer home.Close()
	ns := newNS(t)
	assert.NotEqual(t, home.ID(), ns.ID())

	var inside ID
	var links []net.Interface
	require.NoError(t, ns.Do(func() error {
		cur, err := Current()
		if err != nil {
			return err
		}
		inside = cur.ID()
		links, err = net.Interfaces()
		return errors.Join(err, cur.Close())
	}))
	assert.Equal(t, ns.ID(), inside)
	if assert.Len(t, links, 1) {
		assert.Equal(t, "lo", links[0].Name)
	}

	boom := errors.New("boom")
	require.ErrorIs(t, ns.Do(func() error { return boom }), boom)
}

// A function that ends its goroutine ends the one that called Do, as a test that
// fails there ends: neither waits for ever, and nothing behind Do is done.
func TestIntegrationDoGoexit(t *testing.T) {
	needRoot(t)
	ns := newNS(t)
	ended, after := make(chan struct{}), false
	go func() {
		defer close(ended)
		_ = ns.Do(func() error { runtime.Goexit(); return nil })
		after = true
	}()
	select {
	case <-ended:
		assert.False(t, after)
	case <-time.After(10 * time.Second):
		assert.Fail(t, "Do waits for a function that has ended its goroutine")
	}
}

// Threads that visited namespaces are used for other goroutines afterwards:
// none may be left in a namespace.
func TestIntegrationDoRestores(t *testing.T) {
	needRoot(t)
	home, err := Current()
	require.NoError(t, err)
	defer home.Close()
	ns := newNS(t)
	ids := make([]ID, 64)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if ns.Do(func() error { return nil }) != nil {
				return
			}
			if cur, err := Current(); err == nil {
				ids[i] = cur.ID()
				_ = cur.Close()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		assert.Equal(t, home.ID(), id)
	}
}

func TestIntegrationOpen(t *testing.T) {
	needRoot(t)
	ns := newNS(t)
	self := "/proc/self/fd/" + strconv.Itoa(ns.FD())

	name := "brfuse-test-" + strconv.Itoa(os.Getpid())
	require.NoError(t, os.MkdirAll(Dir, 0o755))
	mount := filepath.Join(Dir, name)
	require.NoError(t, os.WriteFile(mount, nil, 0o600))
	defer os.Remove(mount)
	require.NoError(t, unix.Mount(self, mount, "none", unix.MS_BIND, ""))

	var sleep *exec.Cmd
	require.NoError(t, ns.Do(func() error {
		sleep = exec.CommandContext(t.Context(), "sleep", "60")
		return sleep.Start()
	}))
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()

	for what, ref := range map[string]string{"name": name, "path": self, "pid": strconv.Itoa(sleep.Process.Pid)} {
		got, err := Open(ref)
		if assert.NoError(t, err, what) {
			assert.Equal(t, ns.ID(), got.ID(), what)
			assert.NoError(t, got.Close())
		}
	}
	all := slices.Collect(All())
	assert.Contains(t, all, mount)
	assert.NotContains(t, all, "/proc/"+strconv.Itoa(sleep.Process.Pid)+"/ns/net", "it is told once")

	require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH))
	_, err := Open(name) // the file is still there
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
	assert.Contains(t, slices.Collect(All()), "/proc/"+strconv.Itoa(sleep.Process.Pid)+"/ns/net")
}
