package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/samples"
)

// written returns a file of a benchmark whose ratio is 2.
func written(t *testing.T, name string, goal float64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	rec, err := samples.Create(path)
	require.NoError(t, err)
	rec.Begin(1)
	rec.Add("two", 2*time.Millisecond)
	rec.Add("one", time.Millisecond)
	_, err = rec.Compare(samples.Comparison{Name: name, Of: "two", To: "one", Goal: goal})
	require.NoError(t, err)
	require.NoError(t, rec.Close())
	return path
}

func TestRun(t *testing.T) {
	good, bad, free := written(t, "good", 2), written(t, "bad", 1.6), written(t, "free", 0)
	none := filepath.Join(t.TempDir(), "none")
	require.NoError(t, os.WriteFile(none, nil, 0o600))
	for _, tc := range []struct {
		name string
		args []string
		code int
		out  []string // parts of lines, in their order
		err  string
	}{
		{"all files in their order", []string{good, bad, free}, 0, []string{"ratio of medians", "2.00  MET", "1.60  MISSED", "free"}, ""},
		{"above the goal", []string{"-fail-above", "1", good, bad}, 1, []string{"ratio of medians", "good", "bad"}, "bad is above 1 times its goal"},
		{"within the factor", []string{"-fail-above", "1.25", good, bad, free}, 0, []string{"ratio of medians", "good", "bad", "free"}, ""},
		{"no ratios", []string{none}, 1, nil, "goals: the files have no ratios"},
		{"no such file", []string{none + "x"}, 1, nil, "goals: read samples: "},
		{"no files", nil, 2, nil, "usage: goals"},
		{"negative", []string{"-fail-above", "-1", good}, 2, nil, "usage: goals"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			assert.Equal(t, tc.code, run(tc.args, &stdout, &stderr))
			assert.Contains(t, stderr.String(), tc.err)
			lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
			if tc.out == nil {
				assert.Empty(t, stdout.String())
				return
			}
			require.Len(t, lines, len(tc.out))
			for i, part := range tc.out {
				assert.Contains(t, lines[i], part)
			}
		})
	}
}
