// Command attach measures, in a real guest, how long brfuse takes to attach a
// vNIC to a pod and to detach it, against the floor: the least that does it,
// with a tap made beforehand, one message to QEMU and a program in the guest
// that does nothing else. Both are measured in the same guest in the same run,
// in rounds of alternating order, until the pod answers the same ping.
//
// Run it as root:
//
//	go run ./bench/attach [-rounds 30] [-cpus 1] [-o FILE] [-fail-above RATIO]
//
// It leaves nothing behind.
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are what the command line says.
type options struct {
	rounds    int
	cpus      int
	out       string
	failAbove float64
}

const (
	warmUps    = 3
	maxRounds  = 10_000
	setUpLimit = 2 * time.Minute
	roundLimit = 5 * time.Second // ten times what it takes under emulation on an idle machine
)

// limit bounds the whole run.
func (o options) limit() time.Duration {
	return setUpLimit + time.Duration(o.rounds+warmUps)*roundLimit
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("attach", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 30, "how many `rounds` to measure, after 3 to warm up")
	f.IntVar(&o.cpus, "cpus", 1, "`number` of virtual CPUs of the guest")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	f.Float64Var(&o.failAbove, "fail-above", 0, "exit with 1 when the `ratio` of attach or detach to its floor is above this; 0: never")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > maxRounds:
		err = fmt.Errorf("-rounds %d is not in 1-%d", o.rounds, maxRounds)
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
		fmt.Fprintln(stderr, "attach:", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), fmt.Errorf("the run took longer than %s", o.limit()))
	defer cancel()
	met, err := bench(ctx, o, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "attach:", err)
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
	rec, err := newRecorder(o.out)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rec.close()) }()
	r, err := newRig(ctx, o.cpus)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	env, err := r.vm.Environment(ctx)
	if err != nil {
		return false, err
	}
	if err := rec.write(env); err != nil {
		return false, err
	}
	if err := r.rounds(ctx, o.rounds, rec, stderr); err != nil {
		return false, err
	}
	mem, err := r.memory(ctx)
	if err != nil {
		return false, err
	}
	if err := rec.write(mem); err != nil {
		return false, err
	}
	rep := report{env: env, loadAfter: vmlab.LoadAverage(), series: rec.series, memory: mem}
	return rep.print(stdout, o.failAbove)
}
