package netplot

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
	"gonum.org/v1/plot"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// readSynthetic returns samples that were made up: no guest has measured them.
func readSynthetic(t *testing.T) *result.Set {
	t.Helper()
	dir := filepath.Join("..", "..", "internal", "result", "testdata")
	set, err := result.ReadFiles(filepath.Join(dir, "synthetic.jsonl"), filepath.Join(dir, "counts.jsonl"))
	require.NoError(t, err)
	return set
}

// texts returns what an SVG says, and fails the test when it is none, or has
// coordinates that are no numbers.
func texts(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(b), "NaN", path)
	assert.NotContains(t, string(b), "Inf", path)
	var said []string
	in, within := xml.NewDecoder(strings.NewReader(string(b))), false
	for {
		tok, err := in.Token()
		if errors.Is(err, io.EOF) {
			return said
		}
		require.NoError(t, err)
		switch e := tok.(type) {
		case xml.StartElement:
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

func TestDraw(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	names, err := Draw(dir, readSynthetic(t))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"throughput-host.svg", "latency-host.svg", "latency-pair.svg", "udp-host.svg", "udp-pair.svg", "normalised-host.svg", "normalised-pair.svg",
		"overlay.svg", "flows.svg", "cpu-host.svg", "cpu-pair.svg", "interrupts-host.svg", "interrupts-pair.svg", "instructions.svg",
	}, names)
	for name, want := range map[string][]string{
		"throughput-host.svg": {"MB/s", "the pod sends", "64 B", "64 KiB", "native", "veth", "bridged", "nat", "fused"},
		"latency-host.svg":    {"tcp_rr: median", "16 KiB", "µs, logarithmic", "fused"},
		"udp-host.svg":        {"the pod receives", "1400 B", "thousands a second"},
		"normalised-host.svg": {"ratio to native", "1.00", "0.66", "TCP rx", "nat"},
		"overlay.svg":         {"throughput of one TCP flow", "overlay-nested", "0.50", "1.99"},
		"flows.svg":           {"rig pair, the pod sends", "1", "2", "4", "8", "overlay-fused"},
		"cpu-host.svg":        {"softirq", "ns of CPU for a KiB", "tcp_crr/64"},
		"interrupts-pair.svg": {"NET_TX", "overlay-linux", "other softirqs"},
		"instructions.svg":    {"+ NAT", "instructions for a message", "udp_stream/64, rig host", "fused pod"},
	} {
		said := texts(t, filepath.Join(dir, name))
		for _, text := range want {
			assert.Contains(t, said, text, name)
		}
	}
	for _, name := range names {
		texts(t, filepath.Join(dir, name))
	}
}

// TestDrawIsTheSame draws twice: a plot that is kept in git is to change with its
// samples only.
func TestDrawIsTheSame(t *testing.T) {
	set := readSynthetic(t)
	var drawn [2]map[string]string
	for i := range drawn {
		dir := t.TempDir()
		names, err := Draw(dir, set)
		require.NoError(t, err)
		drawn[i] = map[string]string{}
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			drawn[i][name] = string(b)
		}
	}
	assert.Equal(t, drawn[0], drawn[1])
}

// TestDrawFew draws what a short run or one with strange figures has.
func TestDrawFew(t *testing.T) {
	sample := func(topology, workload string, metrics map[string]float64) result.Sample {
		return result.Sample{Rig: result.Host, Topology: topology, Workload: workload, Round: 1, Metrics: metrics}
	}
	for _, tc := range []struct {
		name    string
		samples []result.Sample
		want    []string
	}{
		{"native only", []result.Sample{sample(result.Native, result.RoundTrip, map[string]float64{result.P50: 1e5})}, []string{"latency-host.svg"}},
		{"median only, an unknown topology", []result.Sample{
			sample(result.Native, result.RoundTrip, map[string]float64{result.P50: 1e5}),
			sample("macvlan", result.RoundTrip, map[string]float64{result.P50: 2e5}),
		}, []string{"latency-host.svg"}},
		{"nothing came", []result.Sample{
			sample(result.Native, result.Datagrams, map[string]float64{result.Rate: 0, result.GuestSystem: 0, result.Interrupts: 0}),
			sample(result.Fused, result.Datagrams, map[string]float64{result.Rate: 0}),
		}, []string{"udp-host.svg"}},
		{"no CPU was busy", []result.Sample{
			sample(result.Native, result.Datagrams, map[string]float64{result.Rate: 10, result.GuestSystem: 0}),
		}, []string{"udp-host.svg", "cpu-host.svg"}},
		{"two layers at once", []result.Sample{
			sample(result.Native, result.Datagrams, map[string]float64{result.Instructions: 100}),
			sample(result.NAT, result.Datagrams, map[string]float64{result.Instructions: 90}),
		}, []string{"instructions.svg"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var set result.Set
			for _, m := range tc.samples {
				require.NoError(t, set.Add(m))
			}
			dir := t.TempDir()
			names, err := Draw(dir, &set)
			require.NoError(t, err)
			assert.Equal(t, tc.want, names)
			for _, name := range names {
				assert.NotEmpty(t, texts(t, filepath.Join(dir, name)))
			}
		})
	}
}

func TestDrawNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := Draw(dir, &result.Set{})
	require.ErrorContains(t, err, "none of the samples")
	assert.NoDirExists(t, dir)
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		name      string
		ticker    plot.Ticker
		low, high float64
		want      string
	}{
		{"hundreds", ticks{}, 0, 420, "0 100 200 300 400"},
		{"parts of one", ticks{}, 0, 1.12, "0.0 0.2 0.4 0.6 0.8 1.0"},
		{"not from 0", ticks{}, 13, 31, "15 20 25 30"},
		{"nothing", ticks{}, 1, 1, ""},
		{"powers", powers{}, 80, 2200, "100 200 500 1000 2000"},
		{"powers of nothing", powers{}, 0, 5, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var labels []string
			for _, tick := range tc.ticker.Ticks(tc.low, tc.high) {
				labels = append(labels, tick.Label)
			}
			assert.Equal(t, tc.want, strings.Join(labels, " "))
		})
	}
}
