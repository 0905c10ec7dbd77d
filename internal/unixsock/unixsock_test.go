package unixsock

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func listen(t *testing.T, path string) *Listener {
	t.Helper()
	l, err := Listen(t.Context(), path, 0o700)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "s.sock")
	l := listen(t, path)
	for name, mode := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		fi, err := os.Stat(name)
		require.NoError(t, err)
		assert.Equal(t, mode, fi.Mode())
	}
	assert.NoFileExists(t, path+".new")

	_, err := Listen(t.Context(), path, 0o700)
	require.ErrorIs(t, err, vnic.ErrInUse)
	require.ErrorContains(t, err, path+": another process serves it; stop that one first")
	require.FileExists(t, path)

	require.NoError(t, l.Close())
	require.NoFileExists(t, path)
	again := listen(t, path)
	require.NoError(t, l.Close(), "it is closed already")
	require.FileExists(t, path, "and the other's socket is left alone")
	require.NoError(t, os.Remove(path))
	assert.NoError(t, again.Close(), "it may be gone")
}

func TestListenReplacesStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	for _, stale := range []string{path, path + ".new"} {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
		require.NoError(t, err)
		dead.SetUnlinkOnClose(false)
		require.NoError(t, dead.Close())
	}
	listen(t, path)
	assert.NoFileExists(t, path+".new")
}

func TestListenLeavesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file, link, fresh := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "x.new")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, os.WriteFile(fresh, nil, 0o600))
	for _, path := range []string{file, link, dir, filepath.Join(dir, "x")} {
		_, err := Listen(t.Context(), path, 0o700)
		require.ErrorIs(t, err, fs.ErrExist, path)
		require.ErrorContains(t, err, "is no socket; remove it or choose another path")
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "mine", string(b))
	_, err = Listen(t.Context(), filepath.Join(file, "s.sock"), 0o700)
	assert.ErrorContains(t, err, "make folder of socket: ")
}

func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l := listen(t, path)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	require.NoError(t, err)
	defer c.Close()
	served, err := l.AcceptUnix()
	require.NoError(t, err)
	cred, err := Peer(served)
	require.NoError(t, err)
	assert.Equal(t, []int{os.Getpid(), os.Geteuid()}, []int{int(cred.Pid), int(cred.Uid)})
	require.NoError(t, served.Close())
	_, err = Peer(served)
	assert.ErrorIs(t, err, net.ErrClosed)
}
