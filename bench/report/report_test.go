package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	"github.com/brfuse/brfuse/bench/internal/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Samples that were made up: no guest has measured them.
var (
	samples = filepath.Join("..", "internal", "result", "testdata", "synthetic.jsonl")
	counts  = filepath.Join("..", "internal", "result", "testdata", "counts.jsonl")
)

// few are the workloads of the golden files.
var few = []string{"tcp_rr/1024", "tcp_stream/16384", "tcp_stream/16384/flows=4", "udp_stream/64", "iperf3/tcp", "redis/get"}

// fewSamples writes those of few workloads into a file, and returns its path.
func fewSamples(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile(samples)
	require.NoError(t, err)
	var kept strings.Builder
	for line := range strings.Lines(string(all)) {
		keep := strings.Contains(line, `"kind":"environment"`)
		for _, w := range few {
			keep = keep || strings.Contains(line, `"workload":"`+w+`"`)
		}
		if keep {
			kept.WriteString(line)
		}
	}
	path := filepath.Join(t.TempDir(), "few.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(kept.String()), 0o600))
	return path
}

func TestReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "flows.svg"), nil, 0o600))
	var stdout, stderr strings.Builder
	require.Equal(t, 0, run([]string{"-o", dir, fewSamples(t), counts}, &stdout, &stderr), stderr.String())
	assert.Contains(t, stdout.String(), "host: median, ratio to native")
	for _, name := range []string{"report.md", "published.md"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		golden := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(golden, got, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s; write it anew by -update", name)
	}
}

// TestBenchFormat reads all of what was written back by the format's own library.
func TestBenchFormat(t *testing.T) {
	set, err := result.ReadFiles(samples, counts)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, benchFormat(&b, set))
	in := benchfmt.NewReader(&b, "bench.txt")
	units := map[string]string{}
	var got []*benchfmt.Result
	for in.Scan() {
		switch rec := in.Result().(type) {
		case *benchfmt.Result:
			got = append(got, rec.Clone())
		case *benchfmt.UnitMetadata:
			units[rec.Unit] = rec.Value
		default:
			require.Failf(t, "a line that can't be read", "%v", rec)
		}
	}
	require.NoError(t, in.Err())
	assert.Equal(t, map[string]string{"B/s": "higher", "msg/s": "higher"}, units)
	require.Len(t, got, len(set.Samples))
	first := got[0]
	assert.Equal(t, "TCPRR/rig=host/topology=native/size=64", string(first.Name))
	assert.Equal(t, "tcg", first.GetConfig("accel"))
	v, ok := first.Value("p50-sec")
	require.True(t, ok)
	assert.InEpsilon(t, set.Samples[0].Metrics[result.P50]/1e9, v, 1e-9)
	assert.Empty(t, got[len(got)-1].GetConfig("accel"), "the counts' file doesn't tell")
}

func TestBenchName(t *testing.T) {
	for workload, want := range map[string]string{
		"tcp_stream/16384/flows=4": "TCPStream/rig=pair/topology=overlay-fused/pod=sends/flows=4/size=16384",
		"udp_stream_rx/64":         "UDPStream/rig=pair/topology=overlay-fused/pod=receives/size=64",
		"redis/get":                "Redis/rig=pair/topology=overlay-fused/test=get",
		"iperf3/udp64":             "Iperf3/rig=pair/topology=overlay-fused/test=udp64",
		"x/a/b":                    "X/rig=pair/topology=overlay-fused/test=a_b",
	} {
		assert.Equal(t, want, benchName(&result.Sample{Rig: result.Pair, Topology: result.OverlayFused, Workload: workload}))
	}
}

// TestPublishedOfNothing says of each figure that there is none of ours.
func TestPublishedOfNothing(t *testing.T) {
	text := published(&result.Set{})
	rows := strings.Count(text, "\n") - 3
	assert.Equal(t, len(claims(&result.Set{})), rows)
	assert.Equal(t, rows, strings.Count(text, result.Unmeasured))
}

// manual is the text that -into is for.
var manual = filepath.Join("..", "..", "docs", "benchmarks.md")

func TestInsert(t *testing.T) {
	docs, err := os.ReadFile(manual)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "x.md")
	require.NoError(t, os.WriteFile(path, docs, 0o600))
	for _, table := range []string{"| first |\n", "| other |\n"} {
		require.NoError(t, insert(path, table))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		before, rest, _ := strings.Cut(string(docs), begin)
		_, after, _ := strings.Cut(rest, end)
		assert.Equal(t, before+begin+"\n"+table+end+after, string(got))
	}
}

func TestInsertRefuses(t *testing.T) {
	for name, text := range map[string]string{"none": "x", "turned round": end + begin, "twice": begin + end + begin + end} {
		path := filepath.Join(t.TempDir(), "x.md")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.ErrorContains(t, insert(path, "y"), "once", name)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, text, string(got))
	}
}

func TestCellsDontEnd(t *testing.T) {
	var p page
	p.text([]string{"a", "b"}, [][]string{{"x|y", "1\n2"}})
	assert.Equal(t, "| a | b |\n|---|---|\n| x\\|y | 1 2 |\n\n", p.String())
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	empty, out := filepath.Join(dir, "empty"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, tc := range []struct {
		name string
		args []string
		code int
		err  string
	}{
		{"no files", []string{"-o", out}, 2, "usage: report"},
		{"no output", []string{empty}, 2, "usage: report"},
		{"unknown flag", []string{"-x"}, 2, "not defined"},
		{"missing file", []string{"-o", out, filepath.Join(dir, "none")}, 1, "report: read samples: open"},
		{"no samples", []string{"-o", out, empty}, 1, "report: the files have no samples"},
		{"no folder", []string{"-o", filepath.Join(empty, "x"), counts}, 1, "report: make folder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			assert.Equal(t, tc.code, run(tc.args, &stdout, &stderr))
			assert.Contains(t, stderr.String(), tc.err)
			assert.Empty(t, stdout.String())
			assert.NoDirExists(t, out)
		})
	}
}

// TestFailMissed takes made-up samples of which one goal is missed, and others that
// have none of it.
func TestFailMissed(t *testing.T) {
	for path, want := range map[string]int{samples: 1, counts: 0} {
		var stdout, stderr strings.Builder
		assert.Equal(t, want, run([]string{"-o", t.TempDir(), "-fail-missed", path}, &stdout, &stderr), stdout.String())
		assert.Equal(t, want == 1, strings.Contains(stderr.String(), "a goal is missed"))
	}
}
