// Command goals prints the ratios that benchmarks have written with -o, with
// their goals, in one table.
//
//	go run ./bench/goals [-fail-above FACTOR] FILE...
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/brfuse/brfuse/internal/samples"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("goals", flag.ContinueOnError)
	f.SetOutput(stderr)
	failAbove := f.Float64("fail-above", 0, "exit with 1 when a ratio is above its goal times this `factor`; 0: never")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() == 0 || *failAbove < 0:
		fmt.Fprintln(stderr, "usage: goals [-fail-above FACTOR] FILE...")
		return 2
	}
	set, err := samples.ReadFiles(f.Args()...)
	if err == nil && len(set.Ratios) == 0 {
		err = errors.New("the files have no ratios")
	}
	if err == nil {
		err = samples.Print(stdout, set.Ratios)
	}
	if err != nil {
		fmt.Fprintln(stderr, "goals:", err)
		return 1
	}
	for _, r := range set.Ratios {
		if *failAbove > 0 && r.Goal > 0 && r.Value > r.Goal**failAbove {
			fmt.Fprintf(stderr, "goals: %s is above %g times its goal\n", r.Name, *failAbove)
			return 1
		}
	}
	return 0
}
