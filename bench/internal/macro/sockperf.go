package macro

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

const sockperf = "/usr/bin/sockperf"

// sockperfEdges are the warm-up (400 ms) and the end (50 ms) that sockperf takes off
// the time that it is given.
const sockperfEdges = 450 * time.Millisecond

// sockperfLoad is a ping-pong of messages of that size in bytes.
func sockperfLoad(size int, udp bool) load {
	port := []string{"-p", strconv.Itoa(sockperfPort)}
	if !udp {
		port = append(port, "--tcp")
	}
	return load{
		port: sockperfPort, udp: udp,
		server: func(Options) []string { return append([]string{sockperf, "server"}, port...) },
		measure: func(ctx context.Context, s Setup, o Options) (map[string]float64, error) {
			// In a second, sockperf finds nothing to count where round trips are very fast.
			d := max(o.Duration+sockperfEdges, 2*time.Second)
			// The clock is the kernel's: a guest's time-stamp counter may have another
			// rate than sockperf takes it to have. Round trips are told, not their halves.
			argv := append([]string{sockperf, "ping-pong", "-i", s.Addr.String()}, port...)
			argv = append(argv, "-m", strconv.Itoa(size), "-t", strconv.Itoa(seconds(d)), "--full-rtt", "--no-rdtsc")
			out, err := client(ctx, s.Client, d, argv...)
			if err != nil {
				return nil, err
			}
			return parseSockperf(out)
		},
	}
}

var (
	escapes          = regexp.MustCompile("\x1b\\[[0-9;]*m")
	sockperfMeasured = regexp.MustCompile(`\[Valid Duration\] RunTime=([0-9.]+) sec;.* SentMessages=(\d+); ReceivedMessages=(\d+)`)
	sockperfRound    = regexp.MustCompile(`Summary: Round trip is`)
	sockperfRank     = regexp.MustCompile(`percentile +([0-9.]+) += +([0-9.]+)\n`)
)

// sockperfRanks are the percentiles that are read.
var sockperfRanks = map[string]string{"50.000": result.P50, "90.000": result.P90, "99.000": result.P99, "99.900": result.P999}

// parseSockperf reads what sockperf ping-pong --full-rtt prints. It ends with code 0
// when there is no server, too.
func parseSockperf(out string) (map[string]float64, error) {
	out = escapes.ReplaceAllString(out, "")
	f := sockperfMeasured.FindStringSubmatch(out)
	if f == nil || !sockperfRound.MatchString(out) {
		return nil, fmt.Errorf("sockperf: no round trips: %q", tail(out))
	}
	var n [3]float64
	for i := range n {
		v, err := number(f[i+1])
		if err != nil {
			return nil, fmt.Errorf("sockperf: %w", err)
		}
		n[i] = v
	}
	elapsed, sent, received := n[0], n[1], n[2]
	if elapsed == 0 || sent == 0 || received > sent {
		return nil, fmt.Errorf("sockperf: %g messages of %g in %g s", received, sent, elapsed)
	}
	m := map[string]float64{result.Rate: received / elapsed, result.Loss: 1 - received/sent}
	for _, f := range sockperfRank.FindAllStringSubmatch(out, -1) {
		name, ok := sockperfRanks[f[1]]
		if !ok {
			continue
		}
		v, err := number(f[2])
		if err != nil {
			return nil, fmt.Errorf("sockperf: percentile %s: %w", f[1], err)
		}
		m[name] = v * 1e3 // from microseconds
	}
	for _, name := range sockperfRanks {
		if _, ok := m[name]; !ok {
			return nil, errors.New("sockperf: " + name + " is missing: " + strconv.Quote(tail(strings.TrimSpace(out))))
		}
	}
	return m, finite(m)
}
