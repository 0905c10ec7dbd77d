package macro

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/brfuse/brfuse/bench/internal/result"
)

const (
	nginx = "/usr/sbin/nginx"
	wrk   = "/usr/bin/wrk"
)

const (
	httpClients = 8    // connections
	httpSize    = 1024 // bytes of the file
)

// httpLoad gets a small file over connections that stay.
func httpLoad() load {
	return load{
		port: httpPort,
		server: func(o Options) []string {
			root := o.Root
			if root == "" {
				root = guestRoot
			}
			// Paths in the configuration are relative to the prefix.
			return []string{nginx, "-p", root, "-c", configFile, "-e", "stderr"}
		},
		measure: func(ctx context.Context, s Setup, o Options) (map[string]float64, error) {
			url := "http://" + netip.AddrPortFrom(s.Addr, httpPort).String() + "/" + httpFile
			run := func(secs int) (string, error) {
				return client(ctx, s.Client, o.Duration, wrk, "-t1", "-c"+strconv.Itoa(httpClients), fmt.Sprintf("-d%ds", secs), "--latency", url)
			}
			if o.WarmUp > 0 {
				if _, err := run(seconds(o.WarmUp)); err != nil {
					return nil, err
				}
			}
			out, err := run(seconds(o.Duration))
			if err != nil {
				return nil, err
			}
			return parseWrk(out)
		},
	}
}

var (
	wrkRate   = regexp.MustCompile(`(?m)^Requests/sec: +(\S+)\n`)
	wrkRank   = regexp.MustCompile(`(?m)^ +(50|90|99)% +([0-9.]+)(us|ms|s|m|h)$`)
	wrkFailed = regexp.MustCompile(`(?m)^ +(Non-2xx or 3xx responses: .*|Socket errors: .*)$`)
)

// wrkRanks are the percentiles that wrk --latency tells and that are read.
var wrkRanks = map[string]string{"50": result.P50, "90": result.P90, "99": result.P99}

// wrkUnits are wrk's units of time in nanoseconds.
var wrkUnits = map[string]float64{"us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}

// parseWrk reads what wrk --latency prints. Throughput is that of the file, without
// headers.
func parseWrk(out string) (map[string]float64, error) {
	if f := wrkFailed.FindStringSubmatch(out); f != nil {
		return nil, fmt.Errorf("wrk: %s", f[1])
	}
	f := wrkRate.FindStringSubmatch(out)
	if f == nil {
		return nil, fmt.Errorf("wrk: no rate: %q", tail(out))
	}
	rate, err := number(f[1])
	if err != nil {
		return nil, fmt.Errorf("wrk: rate: %w", err)
	}
	if rate == 0 {
		return nil, errors.New("wrk: nothing was answered")
	}
	m := map[string]float64{result.Rate: rate, result.Throughput: rate * httpSize}
	for _, f := range wrkRank.FindAllStringSubmatch(out, -1) {
		v, err := number(f[2])
		if err != nil {
			return nil, fmt.Errorf("wrk: percentile %s: %w", f[1], err)
		}
		m[wrkRanks[f[1]]] = v * wrkUnits[f[3]]
	}
	for _, name := range wrkRanks {
		if _, ok := m[name]; !ok {
			return nil, fmt.Errorf("wrk: %s is missing: %q", name, tail(out))
		}
	}
	return m, finite(m)
}
