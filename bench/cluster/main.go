// Command cluster measures how brfuse does with many hypervisors on one store: it
// starts a real etcd, and in one process as many orchestrators as are wanted, each with
// a connection of its own and halves that are fakes and take no time, and has them
// attach pods of one overlay network, IPv4 and IPv6, and detach them again.
//
//   - Attaches, and the lease in each, are compared with the bare etcd transactions
//     beneath: etcd's client sends transactions of as many conditions and writes, with
//     keys and values of the same sizes, as fast, in rounds of alternating order.
//   - A process of its own follows all endpoints as a daemon does; its memory is
//     looked at when all are there.
//   - The cost of one change is measured in fabrics that have a hundredth, a tenth and
//     all of 100,000 endpoints, side by side.
//   - In the end, no address was leased twice, the store has exactly the leases and
//     endpoints of the attachments, and none when all are detached.
//
// A simulated hypervisor follows networks and services but not endpoints: a thousand of
// them in one process would be a thousand copies of all, which real ones keep on
// machines of their own. So etcd's cost of telling each hypervisor of each endpoint is
// in here only for the process that follows.
//
//	go run ./bench/cluster [-hypervisors 1000] [-pods 100] [-members 1] [-concurrency 16] [-rounds 9] [-o FILE] [-fail-above RATIO]
//
// It needs no root, and leaves nothing behind.
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

	"github.com/brfuse/brfuse/internal/samples"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are what the command line says.
type options struct {
	hypervisors int
	pods        int
	members     int
	concurrency int
	rounds      int
	limit       time.Duration
	out         string
	failAbove   float64
}

// bounds of what one process and 2^18 IPv4 addresses carry.
const (
	maxHypervisors = 2000
	maxPods        = 100
)

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.hypervisors, "hypervisors", 1000, "`number` of hypervisors")
	f.IntVar(&o.pods, "pods", 100, "`number` of pods of each, the first of which is to warm up")
	f.IntVar(&o.members, "members", 1, "`number` of etcd's members")
	f.IntVar(&o.concurrency, "concurrency", 16, "`number` of attaches that are under way at a time, each on another hypervisor")
	f.IntVar(&o.rounds, "rounds", 9, "how many `rounds` the attaches are divided into")
	f.DurationVar(&o.limit, "limit", 2*time.Hour, "`time` that the run may take")
	f.StringVar(&o.out, "o", "", "`file` for the raw samples, as lines of JSON")
	f.Float64Var(&o.failAbove, "fail-above", 0, "exit with 1 when a ratio that has a goal is above this `ratio`; 0: never")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.hypervisors < 1 || o.hypervisors > maxHypervisors:
		err = fmt.Errorf("-hypervisors %d is not in 1-%d", o.hypervisors, maxHypervisors)
	case o.pods < 2 || o.pods > maxPods:
		err = fmt.Errorf("-pods %d is not in 2-%d", o.pods, maxPods)
	case o.rounds < 1 || o.rounds > o.pods-1:
		err = fmt.Errorf("-rounds %d is not in 1-%d, one less than the pods", o.rounds, o.pods-1)
	case o.members < 1 || o.concurrency < 1:
		err = errors.New("-members and -concurrency are 1 or more")
	case o.failAbove < 0:
		err = fmt.Errorf("-fail-above %g is negative", o.failAbove)
	}
	return o, err
}

// run returns the exit code. With followCommand first, it is the process that follows.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == followCommand {
		if err := follow(ctx, args[1:], stdin, stdout); err != nil {
			fmt.Fprintln(stderr, "cluster: follow:", err)
			return 1
		}
		return 0
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "cluster:", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the run took longer than %s; see -limit", o.limit))
	defer cancel()
	rep, err := bench(ctx, o, stderr)
	var met bool
	if err == nil {
		met, err = rep.print(stdout, o.failAbove)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "cluster:", err)
		return 1
	case !met:
		return 1
	}
	return 0
}

// bench measures all.
func bench(ctx context.Context, o options, progress io.Writer) (rep *report, err error) {
	rec, err := samples.Create(o.out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rec.Close()) }()
	rep = &report{options: o, env: environment(), series: rec.Series}
	if err := rec.Write(rep.env); err != nil {
		return nil, err
	}
	if err := rep.onEtcd(ctx, rec, progress); err != nil {
		return nil, err
	}
	if err := changes(ctx, rec); err != nil {
		return nil, err
	}
	fmt.Fprintln(progress, "changes: done")
	for _, c := range comparisons() {
		q, err := rec.Compare(c)
		if err != nil {
			return nil, err
		}
		rep.ratios = append(rep.ratios, q)
	}
	rep.env.LoadAfter = load()
	return rep, nil
}
