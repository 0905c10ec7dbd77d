// Command bench measures, in a guest with real container engines, how long CNI
// plugins take to give a pod its network and to take it away: brfuse's, which is
// started anew for each call, without and with a pool of vNICs, against `bridge`
// with masquerading, host-local addresses and portmap, and against host-device.
// All are called by the same client, by libcni, in rounds of alternating order.
// Then it compares whole runs of a container by Docker, on its bridge and on a
// network of brfuse.
//
// Run it as root, in the folder of its module:
//
//	go run ./bench [-rounds 15] [-docker-rounds 5] [-cpus 1] [-o FILE] [-fail-above RATIO]
//
// It leaves nothing behind but the guest's disk in the cache.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/samples"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are what the command line says.
type options struct {
	rounds, dockerRounds int
	cpus                 int
	out                  string
	failAbove            float64
}

const (
	warmUps       = 3
	dockerWarmUps = 1
	maxRounds     = 10_000
	setUpLimit    = 5 * time.Minute
	// Several times what a round takes under emulation on an idle machine.
	roundLimit       = 20 * time.Second
	dockerRoundLimit = 90 * time.Second
)

// limit bounds the whole run.
func (o options) limit() time.Duration {
	return setUpLimit + time.Duration(o.rounds+warmUps)*roundLimit + time.Duration(o.dockerRounds+dockerWarmUps)*dockerRoundLimit
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 15, "how many `rounds` of CNI calls to measure, after 3 to warm up")
	f.IntVar(&o.dockerRounds, "docker-rounds", 5, "how many `rounds` of docker run to measure, after 1 to warm up; 0: none")
	f.IntVar(&o.cpus, "cpus", 1, "`number` of virtual CPUs of the guest")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	f.Float64Var(&o.failAbove, "fail-above", 0, "exit with 1 when the `ratio` of an ADD or DEL of brfuse's to that of bridge and portmap is above this; 0: never")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > maxRounds:
		err = fmt.Errorf("-rounds %d is not in 1-%d", o.rounds, maxRounds)
	case o.dockerRounds < 0 || o.dockerRounds > maxRounds:
		err = fmt.Errorf("-docker-rounds %d is not in 0-%d", o.dockerRounds, maxRounds)
	case o.cpus < 1:
		err = fmt.Errorf("-cpus %d is less than 1", o.cpus)
	case o.failAbove < 0:
		err = fmt.Errorf("-fail-above %g is negative", o.failAbove)
	}
	return o, err
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), fmt.Errorf("the run took longer than %s", o.limit()))
	defer cancel()
	met, err := bench(ctx, o, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	case !met:
		return 1
	}
	return 0
}

// bench measures and prints, and tells whether the ratios are as wanted.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (met bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("run it as root: it makes network namespaces and taps")
	}
	rec, err := samples.Create(o.out)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rec.Close()) }()
	fmt.Fprintln(stderr, "booting the guest; the first time, its disk takes some ten seconds more")
	r, err := newRig(ctx, o.cpus)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	env, err := r.guest.Environment(ctx)
	if err != nil {
		return false, err
	}
	if err := rec.Write(env); err != nil {
		return false, err
	}
	fmt.Fprintf(stderr, "%d rounds of CNI calls\n", warmUps+o.rounds)
	if err := r.measureCNI(ctx, o.rounds, rec); err != nil {
		return false, r.explain(ctx, err)
	}
	if o.dockerRounds > 0 {
		fmt.Fprintf(stderr, "%d rounds of docker run\n", dockerWarmUps+o.dockerRounds)
		if err := r.measureDocker(ctx, o.dockerRounds, rec); err != nil {
			return false, r.explain(ctx, err)
		}
	}
	rep := report{env: env, loadAfter: vmlab.LoadAverage(), series: rec.Series}
	for _, c := range comparisons(o.dockerRounds > 0) {
		q, err := rec.Compare(c)
		if err != nil {
			return false, err
		}
		rep.ratios = append(rep.ratios, q)
	}
	return rep.print(stdout, o.failAbove)
}
