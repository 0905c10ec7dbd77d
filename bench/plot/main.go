// Command plot draws what the benchmarks of attach and of CNI plugins have
// written with -o: the median of each series and its quartiles, grouped into
// attach, detach, CNI and attaches at once.
//
//	go run . -o FILE.svg FILE...
//
// Plot net draws what the network benchmarks have written, a file for each figure.
//
//	go run . net -o DIR FILE...
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/brfuse/brfuse/internal/samples"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run returns the exit code.
func run(args []string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "net" {
		return runNet(args[1:], stderr)
	}
	f := flag.NewFlagSet("plot", flag.ContinueOnError)
	f.SetOutput(stderr)
	out := f.String("o", "", "`file` to write the SVG to; required")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *out == "" || f.NArg() == 0:
		fmt.Fprintln(stderr, "usage: plot -o FILE.svg FILE...")
		return 2
	}
	if err := drawFiles(*out, f.Args()); err != nil {
		fmt.Fprintln(stderr, "plot:", err)
		return 1
	}
	return 0
}

// drawFiles draws the samples of some files.
func drawFiles(out string, in []string) (err error) {
	set, err := samples.ReadFiles(in...)
	if err != nil {
		return err
	}
	there := present(groups(), set.Series)
	if len(there) == 0 {
		return errors.New("the files have none of the series that are drawn")
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return render(f, there, set.Series)
}
