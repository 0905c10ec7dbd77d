package result

import (
	"bytes"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata anew")

// synthetic has numbers that were made up. No guest has measured them.
var synthetic = filepath.Join("testdata", "synthetic.jsonl")

// factors are how much longer a message takes than in native. They are round, so
// that nobody takes them for measurements.
var factors = map[string]float64{
	Native: 1, Veth: 1.1, Bridged: 1.2, NAT: 1.5, Fused: 1,
	OverlayLinux: 1.5, OverlayNested: 2, OverlayFused: 1.25,
}

// generator writes made-up samples.
type generator struct {
	t   *testing.T
	w   *Writer
	rng *rand.Rand
}

// near varies v by some percent, with a rest that is the same everywhere.
func (g generator) near(v float64) float64 {
	v *= 1 + 0.01*g.rng.NormFloat64()
	digits := math.Pow(10, 3-math.Floor(math.Log10(v)))
	return math.Round(v*digits) / digits
}

func (g generator) latency(p50 float64) string {
	h := hdrhistogram.New(1, int64(10*time.Second), 3)
	for range 50 {
		require.NoError(g.t, h.RecordValue(int64(p50*math.Exp(0.2*g.rng.NormFloat64()))))
	}
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	require.NoError(g.t, err)
	return string(b)
}

// metrics makes up those of a workload.
func (g generator) metrics(w Workload, f float64) map[string]float64 {
	m := map[string]float64{
		GuestUser: g.near(0.05), GuestSystem: g.near(0.3), GuestSoftirq: g.near(0.2 * f), GuestIRQ: g.near(0.02),
		GuestCPU: g.near(0.57 + 0.2*(f-1)), QEMUCPU: g.near(0.7 * math.Sqrt(f)), VCPUs: g.near(0.57 + 0.2*(f-1)),
		Interrupts: g.near(1000), Softirqs: g.near(2000 * f), NetRx: g.near(1000 * f), NetTx: g.near(20),
		Drops: 0, Retransmits: 0,
	}
	switch w.Headline() {
	case P50:
		p50 := 100_000*f + float64(w.Size)
		m[P50], m[P90], m[P99], m[P999] = g.near(p50), g.near(1.3*p50), g.near(1.6*p50), g.near(3*p50)
		m[Rate], m[GuestTime] = g.near(1e9/p50), g.near(50_000*f)
	case Throughput:
		m[Throughput] = g.near(4e8 * float64(w.Size) / (float64(w.Size) + 2000) / f * math.Sqrt(float64(w.Flows)))
		m[GuestTimeKiB] = g.near(2000 * f)
	default:
		m[Rate], m[GuestTime] = g.near(5e4/f), g.near(15_000*f)
		if strings.HasPrefix(w.Kind, "udp") {
			m[Loss] = 0.001
			m[Interrupts] = g.near(8000)
		}
	}
	return m
}

func (g generator) sample(rig, topology, workload string, round int) {
	w := ParseWorkload(workload)
	if w.Kind == "iperf3" {
		w.Size = 16384
	}
	f := factors[topology]
	m := Sample{Rig: rig, Topology: topology, Workload: workload, Round: round, Metrics: g.metrics(w, f)}
	if strings.HasSuffix(workload, "_rr/1024") {
		m.Latency = g.latency(m.Metrics[P50])
	}
	if topology == NAT && strings.HasPrefix(workload, "udp") {
		m.Drops = map[string]uint64{"guest:bfb0": 10}
	}
	if round == 0 {
		m.Metrics = map[string]float64{w.Headline(): 1} // as no other
		m.Latency = ""
	}
	require.NoError(g.t, g.w.Sample(m))
}

// counts makes up what bench-insn writes.
func (g generator) counts(topology, workload string, round int) {
	w, f := ParseWorkload(workload), factors[topology]
	m := Sample{Rig: Host, Topology: topology, Workload: workload, Round: round}
	m.Metrics = map[string]float64{w.InstructionsOf(): g.near(10_000 * f)}
	require.NoError(g.t, g.w.Sample(m))
}

var (
	hostTopologies = []string{Native, Veth, Bridged, NAT, Fused}
	pairTopologies = []string{Native, NAT, Fused, OverlayLinux, OverlayNested, OverlayFused}
	hostWorkloads  = []string{
		"tcp_rr/64", RoundTrip, "tcp_rr/16384", "tcp_stream/64", "tcp_stream/1024", Stream, "tcp_stream/65536", StreamRx,
		Datagrams, "udp_stream/1400", DatagramRx, Connects, "iperf3/tcp", "redis/get", "http/1k",
	}
	pairWorkloads = []string{
		RoundTrip, Stream, "tcp_stream/16384/flows=2", "tcp_stream/16384/flows=4", "tcp_stream/16384/flows=8", Datagrams,
	}
	countedWorkloads = []string{Datagrams, RoundTrip, Stream, Connects}
)

// generate makes up two files' content: a run, and the counts of instructions.
func generate(t *testing.T) (run, counts []byte) {
	t.Helper()
	var a, b bytes.Buffer
	env := Environment{
		Rig: Host, Command: "synthetic", Time: time.Unix(0, 0).UTC(), Brfuse: "v0", Go: "go1", Kernel: "0.0", CPU: "none", CPUs: 2,
		Load: "0.00 0.00 0.00", QEMU: "0.0.0", Accel: "tcg", GuestKernel: "0.0", GuestCPUs: 1, Arch: "amd64",
		Offloads: map[string]string{"guest:eth0": "tso gso gro"}, Programs: map[string]string{"iperf3": "0.0"},
	}
	g := generator{t, NewWriter(&a), rand.New(rand.NewPCG(3, 4))}
	require.NoError(t, g.w.Environment(env))
	for round := range 4 {
		for _, topology := range hostTopologies {
			for _, w := range hostWorkloads {
				g.sample(Host, topology, w, round)
			}
		}
	}
	env.Rig = Pair
	require.NoError(t, g.w.Environment(env))
	for round := range 4 {
		for _, topology := range pairTopologies {
			for _, w := range pairWorkloads {
				g.sample(Pair, topology, w, round)
			}
		}
	}
	g.w = NewWriter(&b)
	for round := range 4 {
		for _, topology := range hostTopologies {
			for _, w := range countedWorkloads {
				g.counts(topology, w, round)
			}
		}
	}
	return a.Bytes(), b.Bytes()
}

// TestSynthetic has the files that other tests read be what is made up here.
func TestSynthetic(t *testing.T) {
	run, counts := generate(t)
	for path, want := range map[string][]byte{synthetic: run, filepath.Join("testdata", "counts.jsonl"): counts} {
		if *update {
			require.NoError(t, os.WriteFile(path, want, 0o644))
		}
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s; write it anew by -update", path)
	}
}
