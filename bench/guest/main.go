// Command guest is what the network benchmarks run in their guests, and in the
// hypervisor's namespace: one static program that generates load and serves it,
// builds topologies and reads counters. It prints JSON; errors go to standard
// error.
//
//	guest load serve --port PORT [--everywhere]
//	guest load run --to ADDRESS:PORT --spec JSON [--pids PID,…] [--netns-cost PATH,…] [--everywhere] [--tell ADDRESS:PORT]
//	guest cost [--options JSON] [--for DURATION]
//	guest topology up|down --spec JSON
//	guest offloads
//	guest netns add|del NAME
//	guest nic --mac MAC --address PREFIX
//	guest route add|del --to PREFIX --via ADDRESS --dev NAME
//	guest await --to ADDRESS:PORT [--open]
//	guest neighbours confirm
//
// The exit code is 1 after a failure, and 2 when the command line is wrong. It is
// the benchmarks' own: bench/internal/rig calls it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage is returned for a command line that is wrong.
var errUsage = errors.New("wrong usage")

// command carries out the arguments behind its name, and returns what to print.
type command func(ctx context.Context, args []string, out io.Writer) error

var commands = map[string]command{
	"netns": netns, "nic": nic, "route": route, "await": await, "topology": topology,
	"load": load, "cost": cost, "offloads": offloads,
	"neighbours": neighbours,
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := fmt.Errorf("%w: name a command; `go doc ./bench/guest` lists them", errUsage)
	if len(args) > 0 {
		do, ok := commands[args[0]]
		if ok {
			err = do(ctx, args[1:], stdout)
		} else {
			err = fmt.Errorf("%w: no command %q", errUsage, args[0])
		}
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "guest:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// parse parses flags. Every one of required has to be given.
func parse(f *flag.FlagSet, args []string, required ...string) error {
	f.SetOutput(io.Discard)
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("%s: %w: %w", f.Name(), errUsage, err)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s: %w: unexpected argument %q", f.Name(), errUsage, f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(x *flag.Flag) { given[x.Name] = true })
	for _, name := range required {
		if !given[name] {
			return fmt.Errorf("%s: %w: --%s is required", f.Name(), errUsage, name)
		}
	}
	return nil
}

// verb takes the first argument, which has to be one of some.
func verb(name string, args []string, of ...string) (string, []string, error) {
	for _, v := range of {
		if len(args) > 0 && args[0] == v {
			return v, args[1:], nil
		}
	}
	return "", nil, fmt.Errorf("%s: %w: want one of %q", name, errUsage, of)
}

// write prints v as a line of JSON.
func write(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }
