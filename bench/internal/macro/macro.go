// Package macro measures a network by programs of others: iperf3, sockperf, Redis
// with its benchmark, and nginx with wrk, all as Debian packages them. Its figures
// stand beside those of brfuse's own load generator, and check it.
//
// A server runs in a pod, its client elsewhere; each is started for one workload,
// awaited, and stopped again. Programs are named by their absolute path.
package macro

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// Place is where programs run: a network namespace of a guest or of this machine.
type Place interface {
	// Run runs a program and returns when it has ended; a code other than 0 is no
	// error.
	Run(ctx context.Context, argv ...string) (vmlab.Result, error)
	// Start starts a program and does not wait for it.
	Start(ctx context.Context, argv ...string) (Proc, error)
}

// Proc is a program that was started.
type Proc interface {
	// Stop ends the program and waits for that. It may say that it had ended before.
	Stop(ctx context.Context) error
	// Log is what it has written so far.
	Log() string
}

// Starter is a [Place] but for the type of what it starts.
type Starter[P Proc] interface {
	Run(ctx context.Context, argv ...string) (vmlab.Result, error)
	Start(ctx context.Context, argv ...string) (P, error)
}

// PlaceOf makes a [Place] of what starts programs of a type of its own.
func PlaceOf[P Proc](s Starter[P]) Place { return place[P]{s} }

type place[P Proc] struct{ Starter[P] }

// Start is part of [Place].
func (p place[P]) Start(ctx context.Context, argv ...string) (Proc, error) {
	return p.Starter.Start(ctx, argv...)
}

// Setup is where a workload runs.
type Setup struct {
	Server, Client Place
	Addr           netip.Addr // what the client dials to reach the server
}

// Options say how long a workload runs. The programs know whole seconds only:
// fractions are rounded up.
type Options struct {
	// Duration is how long is measured. Default: 2 s.
	Duration time.Duration
	// WarmUp goes before and isn't counted. sockperf has 0.4 s of its own, and the
	// benchmark of Redis a run of a few requests. Default: none.
	WarmUp time.Duration
	// Root is the folder at the server in which the files of [Image] are, for nginx.
	// Default: where that function puts them.
	Root string
}

// Ports on which the servers listen.
const (
	iperf3Port   = 5201
	sockperfPort = 11111
	redisPort    = 6379
	httpPort     = 8080
)

// grace is what a client may take beside the time that it measures: under emulation,
// starting it takes its time too.
const grace = 30 * time.Second

// load is a workload: a server, and a client with the reader of what it prints.
type load struct {
	port    uint16
	udp     bool // listens on UDP only
	server  func(o Options) []string
	measure func(ctx context.Context, s Setup, o Options) (map[string]float64, error)
}

// loads are the workloads by name.
func loads() map[string]load {
	return map[string]load{
		"iperf3/tcp":     iperf3Load(false),
		"iperf3/udp64":   iperf3Load(true),
		"sockperf/1024":  sockperfLoad(1024, false),
		"sockperf/udp64": sockperfLoad(64, true),
		"redis/get":      redisLoad("get"),
		"redis/set":      redisLoad("set"),
		"http/1k":        httpLoad(),
	}
}

// Workloads returns the names that [Run] takes, sorted. In those of iperf3 the pod
// sends.
func Workloads() []string { return slices.Sorted(maps.Keys(loads())) }

// Run measures one workload and returns figures by the names of package result, such
// as "B/s", "msg/s" and "p50-ns". The server is stopped when it returns, whatever it
// returns. A server that doesn't come up, a client that fails or reports errors, and
// output that can't be read are errors, with what the program wrote.
func Run(ctx context.Context, s Setup, workload string, o Options) (metrics map[string]float64, err error) {
	l, ok := loads()[workload]
	if !ok {
		return nil, fmt.Errorf("run workload %q: there is none of that name; there are %s", workload, strings.Join(Workloads(), ", "))
	}
	if o.Duration <= 0 {
		o.Duration = 2 * time.Second
	}
	server, err := serve(ctx, s.Server, l, o)
	if err != nil {
		return nil, fmt.Errorf("run workload %s: %w", workload, err)
	}
	defer func() {
		if stopErr := stop(ctx, server); stopErr != nil {
			metrics, err = nil, errors.Join(err, fmt.Errorf("run workload %s: %w", workload, stopErr))
		}
	}()
	if metrics, err = l.measure(ctx, s, o); err != nil {
		return nil, fmt.Errorf("run workload %s: %w; the server wrote: %q", workload, err, tail(server.Log()))
	}
	return metrics, nil
}

// client runs a program and returns what it printed. It is given the time that it
// measures, and some more.
func client(ctx context.Context, p Place, measured time.Duration, argv ...string) (string, error) {
	limit := measured + grace
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s didn't end within %s", argv[0], limit))
	defer cancel()
	res, err := p.Run(ctx, argv...)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return "", fmt.Errorf("run %s: %w", strings.Join(argv, " "), err)
	}
	return res.Stdout, nil
}

// seconds rounds up to the whole seconds that the programs take.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// tail returns the end of what a program wrote.
func tail(s string) string {
	const most = 600
	return s[max(0, len(s)-most):]
}

// number reads a figure, which is neither negative nor infinite.
func number(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return 0, err
	}
	if !(v >= 0 && v <= 1e18) { // not for NaN either
		return 0, fmt.Errorf("%q is no figure", s)
	}
	return v, nil
}
