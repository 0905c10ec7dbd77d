package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "brfused.sock")
	l, err := listen(t.Context(), path, "")
	require.NoError(t, err)
	fi, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	_, err = listen(t.Context(), path, "")
	require.ErrorContains(t, err, "another process serves it; stop that one first")

	require.NoError(t, l.Close())
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close()) // as kill -9 leaves it
	l, err = listen(t.Context(), path, "")
	require.NoError(t, err)
	require.NoError(t, l.Close())

	_, err = listen(t.Context(), path, "no-such-group")
	require.ErrorContains(t, err, "socket group")
	assert.NoFileExists(t, path)
}

func TestListenKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(path, []byte("data"), 0o600))
	_, err := listen(t.Context(), path, "")
	require.ErrorContains(t, err, "listen on "+path+": "+path+" is no socket; remove it or choose another path")
	assert.FileExists(t, path)
}
