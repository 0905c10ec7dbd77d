package install_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/install"
	"github.com/brfuse/brfuse/vnic"
)

const conflist = `{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "tuning"}, {"type": "brfuse"}]}`

// files returns the files in a folder, with modes and contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		all[e.Name()] = info.Mode().String() + " " + string(b)
	}
	return all
}

func setUp(t *testing.T) install.Config {
	t.Helper()
	from := t.TempDir()
	c := install.Config{
		Binary: filepath.Join(from, "brfuse-cni"), Dir: t.TempDir(),
		Conflist: filepath.Join(from, "10-brfuse.conflist"), ConflistDir: t.TempDir(),
	}
	require.NoError(t, os.WriteFile(c.Binary, []byte("program"), 0o600))
	require.NoError(t, os.WriteFile(c.Conflist, []byte(conflist), 0o600))
	return c
}

func TestRun(t *testing.T) {
	c := setUp(t)
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir, "brfuse"), []byte("an older program"), 0o600))
	old, err := os.Open(filepath.Join(c.Dir, "brfuse"))
	require.NoError(t, err)
	defer old.Close()
	for range 2 {
		require.NoError(t, install.Run(c))
		assert.Equal(t, map[string]string{"brfuse": "-rwxr-xr-x program"}, files(t, c.Dir))
		assert.Equal(t, map[string]string{"10-brfuse.conflist": "-rw-r--r-- " + conflist}, files(t, c.ConflistDir))
	}
	b := make([]byte, 32)
	n, err := old.Read(b)
	require.NoError(t, err)
	assert.Equal(t, "an older program", string(b[:n]), "a program that runs is not written over")

	c.Conflist = ""
	c.ConflistDir = ""
	assert.NoError(t, install.Run(c))
}

// Nothing is half done: without a good configuration, there is no plugin either.
func TestRunRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		conflist string
		change   func(*install.Config)
		err      error
		text     string
	}{
		{"no json", "{", nil, vnic.ErrInvalid, ""},
		{"no name", `{"cniVersion": "1.0.0", "plugins": [{"type": "brfuse"}]}`, nil, vnic.ErrInvalid, `needs "cniVersion" and "name"`},
		{"another plugin", `{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}`, nil, vnic.ErrInvalid, `none of its "plugins"`},
		{"no binary", conflist, func(c *install.Config) { c.Binary += "x" }, fs.ErrNotExist, "install CNI plugin"},
		{"no configuration", conflist, func(c *install.Config) { c.Conflist += "x" }, fs.ErrNotExist, "install network configuration"},
		{"no folder", conflist, func(c *install.Config) { c.Dir += "x" }, fs.ErrNotExist, "install CNI plugin"},
		{"no folder named", conflist, func(c *install.Config) { c.ConflistDir = "" }, vnic.ErrInvalid, "name the folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := setUp(t)
			require.NoError(t, os.WriteFile(c.Conflist, []byte(tt.conflist), 0o600))
			into := []string{c.Dir, c.ConflistDir}
			if tt.change != nil {
				tt.change(&c)
			}
			err := install.Run(c)
			require.ErrorContains(t, err, tt.text)
			require.ErrorIs(t, err, tt.err)
			for _, dir := range into {
				assert.Empty(t, files(t, dir))
			}
		})
	}
}
