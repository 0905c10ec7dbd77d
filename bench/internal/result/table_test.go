package result

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readSynthetic returns the set of the made-up samples.
func readSynthetic(t *testing.T) *Set {
	t.Helper()
	s, err := ReadFiles(synthetic, filepath.Join("testdata", "counts.jsonl"))
	require.NoError(t, err)
	return s
}

func TestTable(t *testing.T) {
	var b strings.Builder
	require.NoError(t, Table(&b, readSynthetic(t)))
	golden := filepath.Join("testdata", "table.txt")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), b.String())
}

func TestTableOfNothing(t *testing.T) {
	var b strings.Builder
	require.NoError(t, Table(&b, &Set{}))
	assert.Equal(t, "no samples\n", b.String())
}
