package vmlab_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

func TestScratch(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	old := time.Now().Add(-time.Hour)
	stale := filepath.Join(os.TempDir(), "bench.1")
	other := filepath.Join(os.TempDir(), "another.1")
	young := filepath.Join(os.TempDir(), "bench.2")
	for _, dir := range []string{stale, other, young} {
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	}
	for _, dir := range []string{stale, other} {
		require.NoError(t, os.Chtimes(dir, old, old))
	}

	first, err := vmlab.NewScratch("bench")
	require.NoError(t, err)
	assert.NoDirExists(t, stale)
	assert.DirExists(t, other)
	assert.DirExists(t, young, "it may be one that is being made")

	require.NoError(t, os.Chtimes(first.Dir, old, old))
	second, err := vmlab.NewScratch("bench")
	require.NoError(t, err)
	assert.DirExists(t, first.Dir, "it is held")
	require.NoError(t, first.Remove())
	assert.NoDirExists(t, first.Dir)
	assert.DirExists(t, second.Dir)
	require.NoError(t, second.Remove())
	assert.NoDirExists(t, second.Dir)
}
