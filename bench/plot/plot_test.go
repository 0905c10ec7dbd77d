package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/plot/internal/svg"
)

// texts returns what an SVG says, and fails the test when it is none.
func texts(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var said []string
	in, within := xml.NewDecoder(strings.NewReader(string(b))), false
	for first := true; ; {
		tok, err := in.Token()
		if errors.Is(err, io.EOF) {
			return said
		}
		require.NoError(t, err)
		switch e := tok.(type) {
		case xml.StartElement:
			if first {
				require.Equal(t, "svg", e.Name.Local)
				first = false
			}
			within = e.Name.Local == "text"
		case xml.CharData:
			if s := strings.TrimSpace(string(e)); within && s != "" {
				said = append(said, s)
			}
		case xml.EndElement:
			within = false
		}
	}
}

func TestPlot(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.svg")
	var stderr strings.Builder
	require.Equal(t, 0, run([]string{"-o", out, filepath.Join("testdata", "attach.jsonl"), filepath.Join("testdata", "cni.jsonl")}, &stderr), stderr.String())
	said := texts(t, out)
	for _, want := range []string{
		"Attach, until the pod answers", "raw floor: plug and move", "43.0", "brfuse, warm", "21.5",
		"CNI, one call in the guest", "ADD, bridge and portmap", "508.0", "ADD, brfuse, warm", "70.0",
	} {
		assert.Contains(t, said, want)
	}
	for _, none := range []string{"Detach", "1000.0", "DEL, host-device"} {
		assert.NotContains(t, said, none, "a group or bar without samples, or a round to warm up")
	}
}

// TestPlotIsTheSame draws twice: a plot that is kept in git is to change with its
// samples only.
func TestPlotIsTheSame(t *testing.T) {
	var drawn [2]string
	for i := range drawn {
		out := filepath.Join(t.TempDir(), "out.svg")
		require.NoError(t, drawFiles(out, []string{filepath.Join("testdata", "attach.jsonl")}))
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		drawn[i] = string(b)
	}
	assert.Equal(t, drawn[0], drawn[1])
	assert.Equal(t, strings.Count(drawn[0], "font-family:"), strings.Count(drawn[0], svg.Family+svg.Others), "fonts with a way out")
}

func TestAllGroups(t *testing.T) {
	series := map[string][]float64{}
	for _, g := range groups() {
		for _, b := range g.bars {
			assert.NotContains(t, series, b.series, "a series that is drawn twice")
			series[b.series] = []float64{1, 2, 3}
		}
	}
	assert.Equal(t, groups(), present(groups(), series))
	require.NoError(t, render(io.Discard, groups(), series))
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	out := filepath.Join(dir, "out.svg")
	for _, tc := range []struct {
		name string
		args []string
		code int
		err  string
	}{
		{"no files", []string{"-o", out}, 2, "usage: plot"},
		{"no output", []string{empty}, 2, "usage: plot"},
		{"unknown flag", []string{"-x"}, 2, "not defined"},
		{"missing file", []string{"-o", out, filepath.Join(dir, "none")}, 1, "plot: read samples: "},
		{"no samples", []string{"-o", out, empty}, 1, "none of the series"},
		{"no folder", []string{"-o", filepath.Join(dir, "none", "x"), filepath.Join("testdata", "cni.jsonl")}, 1, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr strings.Builder
			assert.Equal(t, tc.code, run(tc.args, &stderr))
			assert.Contains(t, stderr.String(), tc.err)
			assert.NoFileExists(t, out)
		})
	}
}

func TestNet(t *testing.T) {
	samples := filepath.Join("..", "internal", "result", "testdata", "counts.jsonl")
	dir := filepath.Join(t.TempDir(), "out")
	var stderr strings.Builder
	require.Equal(t, 0, run([]string{"net", "-o", dir, samples}, &stderr), stderr.String())
	assert.FileExists(t, filepath.Join(dir, "instructions.svg"))
}

func TestNetRefuses(t *testing.T) {
	dir := t.TempDir()
	empty, out := filepath.Join(dir, "empty"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, tc := range []struct {
		name string
		args []string
		code int
		err  string
	}{
		{"no files", []string{"-o", out}, 2, "usage: plot net"},
		{"no output", []string{empty}, 2, "usage: plot net"},
		{"unknown flag", []string{"-x"}, 2, "not defined"},
		{"no samples", []string{"-o", out, empty}, 1, "none of the samples"},
		{"other samples", []string{"-o", out, filepath.Join("testdata", "cni.jsonl")}, 1, "line 1: no kind"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr strings.Builder
			assert.Equal(t, tc.code, run(append([]string{"net"}, tc.args...), &stderr))
			assert.Contains(t, stderr.String(), tc.err)
			assert.NoDirExists(t, out)
		})
	}
}
