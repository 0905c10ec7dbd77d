// Command net measures the network of pods, in real guests: how much, how fast and
// at what cost of CPU, interrupts and softirqs a pod of brfuse's sends and receives,
// beside a process in the VM and pods behind a bridge, NAT and overlays within the VM.
// docs/benchmarks.md says what the topologies and workloads are.
//
// All topologies are measured in turns within one run: in each round every one is
// set up, has every workload, and is taken down again. The first round is dropped.
//
// Run it as root:
//
//	go run ./bench/net [-quick|-full] [-rig host,pair] [-topologies LIST] [-workloads LIST]
//	                   [-rounds N] [-time DURATION] [-cpus N] [-o FILE]
//
// Without a mode it takes about half an hour on two idle CPUs under emulation, with
// -quick two minutes. It leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const (
	maxRounds = 1000
	maxTime   = time.Minute
	maxCPUs   = 64
)

// options are what the command line says.
type options struct {
	mode       mode
	rigs       []string
	topologies []string
	workloads  []string
	rounds     int
	time       time.Duration
	timeSet    bool
	cpus       int
	out        string
	command    string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("net", flag.ContinueOnError)
	f.SetOutput(stderr)
	quick := f.Bool("quick", false, "measure the main figures on rig host only, in two minutes")
	full := f.Bool("full", false, "measure everything on both rigs, for about four hours")
	rigs := f.String("rig", "", "`list` of rigs, of host and pair; default: both, with -quick host")
	topologies := f.String("topologies", "", "`list` of topologies; default: all, with -quick native,bridged,nat,fused")
	workloads := f.String("workloads", "", "`list` of workloads; default: those of the mode")
	f.IntVar(&o.rounds, "rounds", 0, "how many `rounds` to measure, after 1 to warm up; default: 9, with -quick 6")
	f.DurationVar(&o.time, "time", 0, "how long to measure a workload in a round; default: 450ms, of those with goals 1s, with -quick 700ms")
	f.IntVar(&o.cpus, "cpus", 1, "`number` of virtual CPUs of each guest")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.mode = usualMode
	switch {
	case *quick && *full:
		return o, errors.New("-quick and -full: choose one")
	case *quick:
		o.mode = quickMode
	case *full:
		o.mode = fullMode
	}
	f.Visit(func(set *flag.Flag) { // what is set must say something: defaults are for what is not
		if v := set.Value.String(); err == nil && (v == "" || v == "0" || v == "0s") {
			err = fmt.Errorf("-%s %q: leave it out for the default", set.Name, v)
		}
	})
	if err != nil {
		return o, err
	}
	o.rigs, o.topologies, o.workloads = list(*rigs), list(*topologies), list(*workloads)
	if len(o.rigs) == 0 {
		o.rigs = o.mode.rigs
	}
	if o.rounds == 0 {
		o.rounds = o.mode.rounds
	}
	o.timeSet = o.time != 0
	if !o.timeSet {
		o.time = o.mode.time
	}
	o.command = strings.Join(append([]string{"go run ./bench/net"}, args...), " ")
	return o, o.check(f.Args())
}

func (o options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.rounds < 1 || o.rounds > maxRounds:
		return fmt.Errorf("-rounds %d is not in 1-%d", o.rounds, maxRounds)
	case o.time < 0 || o.time > maxTime:
		return fmt.Errorf("-time %s is not in 0-%s", o.time, maxTime)
	case o.cpus < 1 || o.cpus > maxCPUs:
		return fmt.Errorf("-cpus %d is not in 1-%d", o.cpus, maxCPUs)
	}
	for _, r := range o.rigs {
		if r != result.Host && r != result.Pair {
			return fmt.Errorf("-rig %q is neither %s nor %s", r, result.Host, result.Pair)
		}
	}
	_, err := o.plans()
	return err
}

// list takes a list apart that is divided by commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "net:", err)
		return 2
	}
	if err := bench(ctx, o, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "net: interrupted; what follows are the ends of what ran")
		}
		fmt.Fprintln(stderr, "net:", err)
		return 1
	}
	return 0
}

// bench measures and prints.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("run it as root: it makes network namespaces and taps")
	}
	plans, err := o.plans()
	if err != nil {
		return err
	}
	out, err := result.Create(o.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	pace := newPace(stderr, plans)
	for _, p := range plans {
		if err := measure(ctx, o, p, out, pace); err != nil {
			return fmt.Errorf("rig %s: %w", p.rig, err)
		}
	}
	return result.Table(stdout, out.Set())
}
