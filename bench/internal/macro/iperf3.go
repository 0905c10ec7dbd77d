package macro

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/brfuse/brfuse/bench/internal/result"
)

const iperf3 = "/usr/bin/iperf3"

// Sizes of iperf3's messages in bytes: as the workloads tcp_stream/16384 and
// udp_stream/64 of brfuse's own generator have them.
const (
	streamSize   = 16384
	datagramSize = 64
)

// iperf3Load is one flow that the server sends (-R), as fast as it can.
func iperf3Load(udp bool) load {
	return load{
		port:   iperf3Port,
		server: func(Options) []string { return []string{iperf3, "-s", "-p", strconv.Itoa(iperf3Port)} },
		measure: func(ctx context.Context, s Setup, o Options) (map[string]float64, error) {
			argv := []string{
				iperf3, "-c", s.Addr.String(), "-p", strconv.Itoa(iperf3Port), "-J", "-R",
				"-t", strconv.Itoa(seconds(o.Duration)), "-O", strconv.Itoa(seconds(o.WarmUp)),
			}
			if udp {
				argv = append(argv, "-u", "-b", "0", "-l", strconv.Itoa(datagramSize))
			} else {
				argv = append(argv, "-l", strconv.Itoa(streamSize))
			}
			out, err := client(ctx, s.Client, o.Duration+o.WarmUp, argv...)
			if err != nil {
				return nil, err
			}
			return parseIperf3([]byte(out))
		},
	}
}

// iperf3Report is the part of what iperf3 -J prints that is read. The sums are of
// the time behind the warm-up.
type iperf3Report struct {
	Start struct {
		Test struct {
			Protocol string  `json:"protocol"`
			Size     float64 `json:"blksize"`
		} `json:"test_start"`
	} `json:"start"`
	End struct {
		Sent struct {
			Retransmits *float64 `json:"retransmits"`
		} `json:"sum_sent"`
		Received struct {
			Seconds float64 `json:"seconds"`
			Bytes   float64 `json:"bytes"`
			Lost    float64 `json:"lost_packets"`
		} `json:"sum_received"`
	} `json:"end"`
	// Error is what went wrong: iperf3 -J ends with code 0 even so.
	Error string `json:"error"`
}

// parseIperf3 reads what iperf3 -J prints. Datagrams are counted by the bytes that
// arrived: where the client sends, iperf3 3.12 counts packets of the warm-up too.
func parseIperf3(b []byte) (map[string]float64, error) {
	var r iperf3Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read what iperf3 printed: %w: %q", err, tail(string(b)))
	}
	if r.Error != "" {
		return nil, fmt.Errorf("iperf3: %s", r.Error)
	}
	got := r.End.Received
	if got.Seconds <= 0 || got.Bytes <= 0 {
		return nil, errors.New("iperf3: nothing was received")
	}
	m := map[string]float64{result.Throughput: got.Bytes / got.Seconds}
	if r.Start.Test.Protocol == "UDP" {
		if r.Start.Test.Size < 1 || got.Lost < 0 {
			return nil, fmt.Errorf("iperf3: datagrams of %g bytes, %g of them lost", r.Start.Test.Size, got.Lost)
		}
		received := got.Bytes / r.Start.Test.Size
		m[result.Rate] = received / got.Seconds
		m[result.Loss] = got.Lost / (received + got.Lost)
	} else if n := r.End.Sent.Retransmits; n != nil {
		m["retrans"] = max(0, *n)
	}
	return m, finite(m)
}

// finite returns an error when a figure is none.
func finite(m map[string]float64) error {
	for name, v := range m {
		if !(v >= 0 && v <= 1e18) {
			return fmt.Errorf("%s: %g is no figure", name, v)
		}
	}
	return nil
}
