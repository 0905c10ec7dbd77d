// Command attach measures, in a real guest, how long brfuse takes to attach a
// vNIC to a pod and to detach it, against the floor: the least that does it,
// with a tap made beforehand, one message to QEMU and a program in the guest
// that does nothing else; and with a vNIC from a pool, against that program
// moving a NIC that is plugged already. All are measured in the same guest in the
// same run, in rounds of alternating order, until the pod answers the same ping.
// Then it compares 16 attaches at once with 16 in turn, without and with a pool.
//
// Run it as root:
//
//	go run ./bench/attach [-rounds 30] [-batches 10] [-cpus 1] [-o FILE] [-fail-above RATIO]
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
	rounds    int
	batches   int
	cpus      int
	out       string
	failAbove float64
}

const (
	warmUps    = 3
	maxRounds  = 10_000
	setUpLimit = 2 * time.Minute
	// Several times what they take under emulation on an idle machine.
	roundLimit = 6 * time.Second
	batchLimit = 30 * time.Second
)

// limit bounds the whole run.
func (o options) limit() time.Duration {
	limit := setUpLimit + time.Duration(o.rounds+warmUps)*roundLimit
	if o.batches > 0 {
		limit += time.Duration(o.batches+1) * batchLimit
	}
	return limit
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("attach", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 30, "how many `rounds` to measure, after 3 to warm up")
	f.IntVar(&o.batches, "batches", 10, "how many `rounds` of 16 attaches at once and in turn to measure, after 1 to warm up; 0: none")
	f.IntVar(&o.cpus, "cpus", 1, "`number` of virtual CPUs of the guest")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	f.Float64Var(&o.failAbove, "fail-above", 0, "exit with 1 when the `ratio` of an attach or detach to its floor is above this; 0: never")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > maxRounds:
		err = fmt.Errorf("-rounds %d is not in 1-%d", o.rounds, maxRounds)
	case o.batches < 0 || o.batches > maxRounds:
		err = fmt.Errorf("-batches %d is not in 0-%d", o.batches, maxRounds)
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
	rec, err := samples.Create(o.out)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rec.Close()) }()
	r, err := newRig(ctx, o.cpus)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	env, err := r.vm.Environment(ctx)
	if err != nil {
		return false, err
	}
	rep := report{env: env, series: rec.Series}
	if err := rec.Write(env); err != nil {
		return false, err
	}
	if err := r.measure(ctx, o, rec, &rep, stderr); err != nil {
		return false, err
	}
	rep.loadAfter = vmlab.LoadAverage()
	return rep.print(stdout, o.failAbove)
}

// measure takes all measurements and completes the report.
func (r *rig) measure(ctx context.Context, o options, rec *samples.Recorder, rep *report, progress io.Writer) (err error) {
	if err := r.rounds(ctx, o.rounds, rec, progress); err != nil {
		return err
	}
	if o.batches > 0 {
		if err := r.batches(ctx, o.batches, rec, progress); err != nil {
			return err
		}
	}
	if err := r.warm.RemovePool(ctx); err != nil {
		return err
	}
	if rep.memory, err = r.memory(ctx); err != nil {
		return err
	}
	if err := rec.Write(rep.memory); err != nil {
		return err
	}
	for _, c := range comparisons(o.batches > 0) {
		q, err := rec.Compare(c)
		if err != nil {
			return err
		}
		rep.ratios = append(rep.ratios, q)
	}
	return nil
}
