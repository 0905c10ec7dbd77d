package netnsx

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationNamed(t *testing.T) {
	needRoot(t)
	name := "brfuse-named-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() { assert.NoError(t, Remove(name)) })
	exists := func() bool {
		found, err := Exists(name)
		require.NoError(t, err)
		return found
	}
	assert.False(t, exists())
	require.NoError(t, Remove(name), "there is none")
	ns, err := Add(name)
	require.NoError(t, err)
	id := ns.ID()
	_, err = Add(name)
	require.ErrorIs(t, err, fs.ErrExist)
	require.NoError(t, ns.Close())
	assert.True(t, exists())

	ns, err = Open(name) // it outlives what was returned
	require.NoError(t, err)
	assert.Equal(t, id, ns.ID())
	require.NoError(t, ns.Close())
	require.NoError(t, Remove(name))
	assert.False(t, exists())

	require.NoError(t, os.WriteFile(filepath.Join(Dir, name), nil, 0o444)) // a broken Add
	assert.True(t, exists())
	require.NoError(t, Remove(name))
	assert.False(t, exists())
}

func TestNamedNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, name := range []string{"", "..", "a/b", file, strconv.Itoa(os.Getpid())} {
		_, err := Add(name)
		require.Error(t, err, name)
		_, err = Exists(name)
		require.Error(t, err, name)
		require.Error(t, Remove(name), name)
	}
	assert.FileExists(t, file)
	_, err := Exists(file)
	assert.ErrorIs(t, err, vnic.ErrInvalid)
}
