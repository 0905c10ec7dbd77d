// Command insn counts the instructions that guests execute under QEMU's emulator
// for each packet, round trip, connection and KiB, in each topology. A busy
// machine doesn't move such a figure, so that it can have a budget: the ratio of
// the fused path to that of a process in the VM, and to that behind NAT, must not
// be above what budget.go says.
//
// Run it as root:
//
//	go run ./bench/insn [-rig host,pair] [-topologies LIST] [-workloads LIST] [-rounds 5] [-max-rounds 15] [-o FILE]
//
// On rig host, one guest is counted, from before the client connects until the last
// message is through: 12,000 packets, 1,500 round trips, 500 connections, 32 MiB. On
// rig pair, it is the sum of both guests, but for a stream of datagrams, where it is
// the sender's. Four things make the figure steady on a busy machine: a client
// and a server in C (peer/peer.c), guests and client on one CPU of the machine, a
// kernel that doesn't fill memory with zeros before it uses it (both in bed.go), and
// datagrams that come in bursts (burst.go).
//
// The exit code is 1 when a budget is broken, or when the interquartile range of a
// series stays above 3 % of its median; 6 % for round trips, 12 % for a TCP stream. It
// needs gcc. It leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
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

// spreadLimit returns what the interquartile range of a series may be of its median. A
// machine decides how often a guest sleeps in a round trip, and how many segments of a
// stream come to be one on a way with several devices.
func spreadLimit(workload string) float64 {
	switch kind, _, _ := strings.Cut(workload, "/"); kind {
	case "tcp_rr":
		return 0.06
	case "tcp_stream":
		return 0.12
	}
	return 0.03
}

const (
	mostRounds = 1000
	// Several times what they take under emulation on an idle machine.
	setUpLimit    = 3 * time.Minute
	topologyLimit = 2 * time.Minute // of a topology in a round
)

// options are what the command line says.
type options struct {
	rigs       []string
	topologies string
	workloads  []string
	rounds     int
	most       int
	out        string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("insn", flag.ContinueOnError)
	f.SetOutput(stderr)
	rigs := f.String("rig", "", "`list` of rigs, of host and pair; empty: both")
	f.StringVar(&o.topologies, "topologies", "", "`list` of topologies; empty: all that a rig has")
	workloads := f.String("workloads", "", "`list` of workloads; empty: all")
	f.IntVar(&o.rounds, "rounds", 5, "how many `rounds` to measure, after one to warm up")
	f.IntVar(&o.most, "max-rounds", 15, "how many `rounds` to measure at most of what still scatters or misses a budget")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.most > mostRounds:
		return o, fmt.Errorf("-rounds %d and -max-rounds %d are not in 1-%d", o.rounds, o.most, mostRounds)
	}
	o.most = max(o.most, o.rounds)
	if o.rigs, err = choose("rig", *rigs, []string{result.Host, result.Pair}); err != nil {
		return o, err
	}
	o.workloads, err = choose("workload", *workloads, names(o.rigs...))
	return o, err
}

// topologiesOf returns those of a rig that are asked for.
func (o options) topologiesOf(all []string) ([]string, error) {
	return choose("topology", o.topologies, all)
}

// workloadsOf returns those that are asked for and that a rig has.
func (o options) workloadsOf(rig string) []string {
	has := names(rig)
	return slices.DeleteFunc(slices.Clone(o.workloads), func(w string) bool { return !slices.Contains(has, w) })
}

// limit bounds the whole run.
func (o options) limit() time.Duration {
	const topologies = 8 // as many as a rig has, or more
	return time.Duration(len(o.rigs)) * (setUpLimit + time.Duration(o.most+1)*topologies*topologyLimit)
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "insn:", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), fmt.Errorf("the run took longer than %s", o.limit()))
	defer cancel()
	met, err := bench(ctx, o, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "insn:", err)
	}
	if err != nil || !met {
		return 1
	}
	return 0
}

// bench measures and prints, and tells whether all is as it has to be.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (met bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("run it as root: it makes network namespaces and taps")
	}
	out, err := result.Create(o.out)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	var plans []plan
	for _, name := range o.rigs {
		p, err := o.onRig(ctx, name, out, stderr)
		if err != nil {
			return false, fmt.Errorf("rig %s: %w", name, err)
		}
		plans = append(plans, p)
	}
	verdicts := judge(budgets, out.Set())
	return good(plans, out.Set(), verdicts), printReport(stdout, plans, out.Set(), verdicts)
}

// onRig measures on one rig.
func (o options) onRig(ctx context.Context, name string, out *result.Writer, progress io.Writer) (p plan, err error) {
	b, err := newBed(ctx, name == result.Pair, progress)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, b.close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	p = plan{rig: name, workloads: o.workloadsOf(name), budgets: budgets, rounds: o.rounds, most: o.most, limit: spreadLimit}
	if p.topologies, err = o.topologiesOf(b.rig.Topologies()); err != nil {
		return p, err
	}
	env, err := b.rig.Environment(ctx)
	if err != nil {
		return p, err
	}
	env.Pinned = fmt.Sprintf("guests and client on %d", b.cpu)
	env.Rig, env.Command = name, strings.TrimSpace("go run ./bench/insn "+strings.Join(os.Args[1:], " "))
	if err := out.Environment(env); err != nil {
		return p, err
	}
	return p, p.measure(ctx, b, out, progress)
}

// good tells whether every budget is kept and nothing scatters.
func good(plans []plan, set *result.Set, verdicts []verdict) bool {
	for _, v := range verdicts {
		if !v.met() {
			return false
		}
	}
	for _, p := range plans {
		if len(p.wide(set)) > 0 {
			return false
		}
	}
	return true
}
