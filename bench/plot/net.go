package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/plot/netplot"
)

// runNet draws what the network benchmarks have written. It returns the exit code.
func runNet(args []string, stderr io.Writer) int {
	f := flag.NewFlagSet("plot net", flag.ContinueOnError)
	f.SetOutput(stderr)
	out := f.String("o", "", "`folder` to write SVG files to; required, made if it is not there")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *out == "" || f.NArg() == 0:
		fmt.Fprintln(stderr, "usage: plot net -o DIR FILE...")
		return 2
	}
	set, err := result.ReadFiles(f.Args()...)
	if err == nil {
		_, err = netplot.Draw(*out, set)
	}
	if err != nil {
		fmt.Fprintln(stderr, "plot:", err)
		return 1
	}
	return 0
}
