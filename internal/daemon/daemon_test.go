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
	require.ErrorContains(t, err, "another brfused answers there")

	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close()) // as kill -9 leaves it
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
	require.ErrorContains(t, err, "listen on "+path+": there is a file that is no socket")
	assert.FileExists(t, path)
}
