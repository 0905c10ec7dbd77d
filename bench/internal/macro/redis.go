package macro

import (
	"context"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

const (
	redisServer    = "/usr/bin/redis-server"
	redisBenchmark = "/usr/bin/redis-benchmark"
)

const (
	redisClients = 8   // connections
	redisSize    = 64  // bytes of a value
	redisPilot   = 500 // requests of the run that tells how many fit into the time
	redisMost    = 20_000_000
)

// redisLoad is a command of Redis, with one request under way on each of some
// connections. Nothing is written to disk.
func redisLoad(command string) load {
	return load{
		port: redisPort,
		server: func(Options) []string {
			return []string{
				redisServer, "--port", strconv.Itoa(redisPort), "--bind", "*", "--protected-mode", "no",
				"--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", "/",
			}
		},
		measure: func(ctx context.Context, s Setup, o Options) (map[string]float64, error) {
			// redis-benchmark knows no time, only a number of requests. A first run tells
			// the rate, puts a value there for the gets, and is the warm-up.
			pilot, err := runRedis(ctx, s, "set,get", command, redisPilot, 0)
			if err != nil {
				return nil, err
			}
			rate := pilot[result.Rate]
			if o.WarmUp > 0 {
				warm, err := runRedis(ctx, s, command, command, requests(rate, o.WarmUp), o.WarmUp)
				if err != nil {
					return nil, err
				}
				rate = warm[result.Rate]
			}
			return runRedis(ctx, s, command, command, requests(rate, o.Duration), o.Duration)
		},
	}
}

// requests returns how many fit into d.
func requests(rate float64, d time.Duration) int {
	return int(min(max(rate*d.Seconds(), redisPilot), redisMost))
}

// runRedis sends n requests of each of some commands, and returns the figures of one.
func runRedis(ctx context.Context, s Setup, commands, command string, n int, d time.Duration) (map[string]float64, error) {
	// It tries to connect for ever; the time limit ends that.
	out, err := client(ctx, s.Client, d, redisBenchmark, "-h", s.Addr.String(), "-p", strconv.Itoa(redisPort), "-t", commands,
		"-n", strconv.Itoa(n), "-c", strconv.Itoa(redisClients), "-d", strconv.Itoa(redisSize), "--csv")
	if err != nil {
		return nil, err
	}
	return parseRedis(out, command)
}

// redisColumns are those that are read: metric and what makes its unit of the column's.
var redisColumns = map[string]struct {
	metric string
	factor float64
}{
	"rps":            {result.Rate, 1},
	"p50_latency_ms": {result.P50, 1e6},
	"p99_latency_ms": {result.P99, 1e6},
}

// parseRedis reads what redis-benchmark --csv prints of a command. It has no
// percentiles but p50, p95 and p99, and those by microseconds.
func parseRedis(out, command string) (map[string]float64, error) {
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("redis-benchmark: %w: %q", err, tail(out))
	}
	if len(rows) == 0 || !strings.HasSuffix(out, "\n") {
		return nil, fmt.Errorf("redis-benchmark: it printed nothing, or not all: %q", tail(out))
	}
	for _, row := range rows[1:] {
		if !strings.EqualFold(row[0], command) {
			continue
		}
		m := map[string]float64{}
		for i, name := range rows[0] {
			c, ok := redisColumns[name]
			if !ok {
				continue
			}
			v, err := number(row[i])
			if err != nil {
				return nil, fmt.Errorf("redis-benchmark: %s: %w", name, err)
			}
			m[c.metric] = v * c.factor
		}
		if len(m) != len(redisColumns) || m[result.Rate] == 0 {
			return nil, fmt.Errorf("redis-benchmark: a column is missing, or nothing was done: %q", tail(out))
		}
		return m, nil
	}
	return nil, fmt.Errorf("redis-benchmark: nothing about %s: %q", command, tail(out))
}
