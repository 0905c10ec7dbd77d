package cli_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/cli"
	"github.com/brfuse/brfuse/internal/netload"
)

// goldenSamples is a file as bench --samples writes it. Package bench/internal/result
// has a test that reads it.
const goldenSamples = "testdata/samples.jsonl"

// TestSamples compares the lines of bench --samples with a file; UPDATE=1 writes that
// anew. Of histograms it compares what is in them: how well they are compressed is up
// to the Go version.
func TestSamples(t *testing.T) {
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "brfused.sock"), filepath.Join(dir, "samples.jsonl")
	serve(t, t.Cleanup, func(string, string) {}, socket)
	for _, args := range [][]string{
		{"network", "create", "blue", "--subnet", "10.9.0.0/24"},
		{"vm", "add", "vm1", "--qmp", "vm1.qmp", "--channel", "vm1.chan"},
		{"vm", "add", "vm2", "--qmp", "vm2.qmp", "--channel", "vm2.chan"},
		{"bench", "--vm", "vm1", "--peer", "vm2", "--rounds", "2", "--samples", file},
	} {
		var said bytes.Buffer
		m := cli.Main{Args: append([]string{"--socket", socket}, args...), Stdout: io.Discard, Stderr: &said, Getenv: func(string) string { return "" }}
		require.Zero(t, m.Run(t.Context()), "%v: %s", args, &said)
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(goldenSamples, got, 0o600))
	}
	want, err := os.ReadFile(goldenSamples)
	require.NoError(t, err)
	assert.Equal(t, unpacked(t, want), unpacked(t, got), "write %s anew by UPDATE=1", goldenSamples)
}

// unpacked returns the lines of a file with what their histograms have.
func unpacked(t *testing.T, b []byte) (lines []map[string]any) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var line map[string]any
		require.NoError(t, d.Decode(&line))
		if text, ok := line["latency"].(string); ok {
			var h netload.Histogram
			require.NoError(t, h.UnmarshalText([]byte(text)))
			line["latency"] = []any{h.Count(), h.Percentile(50), h.Max()}
		}
		lines = append(lines, line)
	}
	return lines
}
