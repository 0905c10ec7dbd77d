package result

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// line is a sample as it is written.
func line(round, metrics string) string {
	return `{"kind":"sample","rig":"host","topology":"native","workload":"tcp_rr/64","round":` + round + `,"metrics":{` + metrics + "}}\n"
}

func TestReadRefuses(t *testing.T) {
	good := line("1", `"p50-ns":5`)
	for _, tc := range []struct{ name, in, err string }{
		{"no JSON", good + "x\n", "line 2: invalid character"},
		{"empty line", "\n", "line 1: unexpected end of JSON input"},
		{"no kind", "{}", "line 1: no kind"},
		{"no workload", `{"kind":"sample","rig":"host","topology":"nat"}`, "line 1: a sample without rig, topology or workload"},
		{"space", `{"kind":"sample","rig":"ho st","topology":"nat","workload":"x"}`, "a space, or a workload without a kind"},
		{"no kind of workload", `{"kind":"sample","rig":"host","topology":"nat","workload":"/64"}`, "a workload without a kind"},
		{"negative", line("1", `"p50-ns":-5`), "line 1: host native tcp_rr/64 p50-ns: -5 is no measurement"},
		{"metric without a name", line("1", `"":5`), `"" is no metric`},
		{"twice", good + good, "line 2: host native tcp_rr/64 p50-ns: a second sample of round 1"},
		{"wrong type", line(`"1"`, ""), "line 1: json: cannot unmarshal"},
		{"histogram", `{"kind":"sample","rig":"host","topology":"nat","workload":"x","latency":"AAAA"}`, "line 1: host nat x latency: decode histogram: "},
		{"environment", `{"kind":"environment","cpus":"many"}`, "line 1: json: cannot unmarshal"},
		{"long line", good + strings.Repeat("x", maxLine+1), "line 2: bufio.Scanner: token too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := new(Set).Read(strings.NewReader(tc.in))
			require.Error(t, err)
			assert.Contains(t, err.Error(), tc.err)
		})
	}
}

func TestReadFilesNamesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(line("1", "")+"{}\n"), 0o600))
	_, err := ReadFiles(path)
	require.EqualError(t, err, "read samples: "+path+": line 2: no kind: not a line of a network benchmark")
	_, err = ReadFiles(filepath.Join(t.TempDir(), "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadPassesOver(t *testing.T) {
	var s Set
	require.NoError(t, s.Read(strings.NewReader(
		`{"kind":"of tomorrow","round":"x"}`+"\n"+line("0", `"p50-ns":900`)+line("-1", `"p50-ns":901`)+line("1", `"p50-ns":5`),
	)))
	assert.Len(t, s.Samples, 1, "rounds to warm up are left out")
	require.NoError(t, s.Read(strings.NewReader(line("1", `"p50-ns":6`)+`{"kind":"sample","rig":"ho`)), "the last line was cut off")
	assert.Len(t, s.Samples, 2)
	s = Set{}
	require.NoError(t, s.Read(strings.NewReader(strings.TrimSuffix(line("1", `"p50-ns":5`), "\n"))), "it has no end")
	assert.Equal(t, []float64{5}, s.Values(Ref{Host, Native, "tcp_rr/64", P50}))
}

// TestWriterKeeps has what is read be what was written, and kept.
func TestWriterKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	w, err := Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Environment(Environment{Rig: Host, CPU: "none"}))
	for round := range 3 {
		require.NoError(t, w.Sample(Sample{
			Rig: Host, Topology: NAT, Workload: "udp_stream/64", Round: round,
			Metrics: map[string]float64{Rate: 1000}, Drops: map[string]uint64{"guest:eth0": 3},
		}))
	}
	require.ErrorContains(t, w.Sample(Sample{Rig: Host}), "write sample: a sample without")
	require.NoError(t, w.Close())
	s, err := ReadFiles(path)
	require.NoError(t, err)
	assert.Len(t, s.Samples, 2)
	assert.Equal(t, w.Set().Samples, s.Samples)
	assert.Equal(t, w.Set().Environments, s.Environments)
	env, ok := s.EnvironmentOf(1)
	require.True(t, ok)
	assert.Equal(t, "none", env.CPU)
}

func TestCreate(t *testing.T) {
	w, err := Create("")
	require.NoError(t, err)
	require.NoError(t, w.Sample(Sample{Rig: Host, Topology: NAT, Workload: "x", Round: 1, Metrics: map[string]float64{Rate: 4}}))
	assert.Len(t, w.Set().Samples, 1)
	require.NoError(t, w.Close())
	_, err = Create(filepath.Join(t.TempDir(), "none", "x"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{synthetic, filepath.Join("testdata", "counts.jsonl")} {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		lines := bytes.SplitAfter(b, []byte("\n"))
		for i := 0; i < len(lines); i += 40 {
			f.Add(bytes.Join(lines[i:min(i+3, len(lines))], nil))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var s Set
		if s.Read(bytes.NewReader(in)) != nil {
			return
		}
		for i, m := range s.Samples {
			assert.Positive(t, m.Round)
			s.EnvironmentOf(i)
			s.Latency(m.Rig, m.Topology, m.Workload)
		}
		var out strings.Builder
		require.NoError(t, Table(&out, &s))
		assert.NotEmpty(t, out.String())
	})
}
