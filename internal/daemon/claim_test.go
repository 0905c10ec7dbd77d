package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClaim(t *testing.T) {
	name := fmt.Sprintf("@brfused-test-%d", os.Getpid())
	log := slog.New(slog.DiscardHandler)
	release, err := claim(t.Context(), name, log)
	require.NoError(t, err)
	_, err = claim(t.Context(), name, log)
	require.ErrorContains(t, err, fmt.Sprintf("another brfused, process %d, serves this network namespace", os.Getpid()))
	release()
	release, err = claim(t.Context(), name, log)
	require.NoError(t, err)
	release()
}

// TestStateThatCannotBeOpened: the daemon says why, and starts nothing.
func TestStateThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	require.NoError(t, os.WriteFile(garbage, []byte("hello"), 0o600))
	for _, state := range []string{garbage, dir} {
		_, err := newParts(t.Context(), Config{Socket: filepath.Join(dir, "s"), State: state, Log: slog.New(slog.DiscardHandler)}, nil)
		require.Error(t, err)
		assert.Contains(t, err.Error(), state)
	}
}
