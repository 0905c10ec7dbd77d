package netload

import (
	"bufio"
	"context"
	"encoding/json"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// throughput is what a TCP stream came to.
type throughput struct {
	perSecond    float64 // bytes
	perCPUSecond float64 // bytes, of both ends' CPU time
}

// TestAgreesWithIperf3 measures a TCP stream over the loopback by both
// programs in turns. How much of a busy machine each gets is chance, so the bytes
// per second of CPU time are compared: the medians are to agree within a quarter.
// TestIntegrationShapedLink compares the rates.
func TestAgreesWithIperf3(t *testing.T) {
	program := iperf3(t)
	s := listen(t, Options{})
	var own, others []throughput
	for range 5 {
		others = append(others, iperf(t, program, "127.0.0.1", nil, nil))
		own = append(own, ownStream(t, s.Addr(), RunOptions{}))
	}
	cost := func(p throughput) float64 { return p.perCPUSecond }
	rate := func(p throughput) float64 { return p.perSecond }
	t.Logf("netload %.0f MB/s, iperf3 %.0f MB/s", median(own, rate)/1e6, median(others, rate)/1e6)
	t.Logf("netload %.0f MB per CPU second, iperf3 %.0f", median(own, cost)/1e6, median(others, cost)/1e6)
	assert.InDelta(t, 1, median(own, cost)/median(others, cost), 0.25)
}

func iperf3(t *testing.T) string {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("takes seconds; the race detector looks at each byte that is sent")
	}
	program, err := exec.LookPath("iperf3")
	if err != nil {
		t.Skip("iperf3 is not installed: there is nothing to compare with")
	}
	return program
}

func median(v []throughput, of func(throughput) float64) float64 {
	var m []float64
	for _, p := range v {
		m = append(m, of(p))
	}
	slices.Sort(m)
	return m[len(m)/2]
}

// cpuTime is this process's.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ownStream is a second of netload's, with both ends in this process.
func ownStream(t *testing.T, to netip.AddrPort, opts RunOptions) throughput {
	t.Helper()
	before := cpuTime(t)
	r, err := Run(t.Context(), to, Spec{Kind: TCPStream, Size: 128 << 10, Duration: time.Second}, opts)
	require.NoError(t, err)
	all := float64(r.Sent) * float64(r.Size)
	return throughput{r.BytesPerSecond(), all / (cpuTime(t) - before).Seconds()}
}

// iperf is a second of iperf3's, with a server of its own.
func iperf(t *testing.T, program, server string, serverIn, clientIn func(func() error) error) throughput {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	port := freePort(t)
	serve := exec.CommandContext(ctx, program, "-s", "-1", "-B", server, "-p", port, "--forceflush")
	out, err := serve.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, orHere(serverIn)(serve.Start))
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening") {
	}
	client := exec.CommandContext(ctx, program, "-c", server, "-p", port, "-t", "1", "-l", "128K", "-J")
	var report []byte
	require.NoError(t, orHere(clientIn)(func() (err error) {
		report, err = client.Output()
		return err
	}), "%s", report)
	for lines.Scan() {
	}
	require.NoError(t, serve.Wait())
	var r struct {
		End struct {
			Received struct {
				Bytes         float64 `json:"bytes"`
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	require.NoError(t, json.Unmarshal(report, &r))
	require.Positive(t, r.End.Received.BitsPerSecond)
	cpu := client.ProcessState.SystemTime() + client.ProcessState.UserTime() +
		serve.ProcessState.SystemTime() + serve.ProcessState.UserTime()
	return throughput{r.End.Received.BitsPerSecond / 8, r.End.Received.Bytes / cpu.Seconds()}
}

func orHere(in func(func() error) error) func(func() error) error {
	if in == nil {
		return func(fn func() error) error { return fn() }
	}
	return in
}

func freePort(t *testing.T) string {
	t.Helper()
	s := listen(t, Options{})
	_, port, _ := strings.Cut(s.Addr().String(), ":")
	require.NoError(t, s.Close())
	return port
}
