// Command report makes a report of what the network benchmarks have written: tables
// of all figures with their ratios to native, goals, cross-checks and what each layer
// costs (report.md), the table of published figures and ours (published.md), and all
// samples in Go's benchmark format, for benchstat (bench.txt).
//
//	go run ./bench/report -o DIR [-into FILE.md] [-fail-missed] FILE.jsonl...
//
// -into puts the published figures and ours into another text too, between two lines
// that it has for them: nobody types figures.
//
// Plots that are in the folder already are shown in the report: bench/plot draws them.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/bench/internal/result"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("report", flag.ContinueOnError)
	f.SetOutput(stderr)
	out := f.String("o", "", "`folder` to write to; required, made if it is not there")
	into := f.String("into", "", "`file` to put the table of published figures into as well")
	failMissed := f.Bool("fail-missed", false, "exit with 1 when a goal is missed")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *out == "" || f.NArg() == 0:
		fmt.Fprintln(stderr, "usage: report -o DIR [-into FILE.md] [-fail-missed] FILE.jsonl...")
		return 2
	}
	set, err := result.ReadFiles(f.Args()...)
	if err == nil && len(set.Samples) == 0 {
		err = errors.New("the files have no samples but those of rounds to warm up")
	}
	if err == nil {
		err = write(*out, set)
	}
	if err == nil && *into != "" {
		err = insert(*into, published(set))
	}
	if err == nil {
		err = result.Table(stdout, set)
	}
	if err != nil {
		fmt.Fprintln(stderr, "report:", err)
		return 1
	}
	if *failMissed && result.Missing(set.Goals()) {
		fmt.Fprintln(stderr, "report: a goal is missed")
		return 1
	}
	return 0
}

// write writes all files of a report.
func write(dir string, set *result.Set) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder of the report: %w", err)
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		return fmt.Errorf("look for plots: %w", err)
	}
	var bench bytes.Buffer
	if err := benchFormat(&bench, set); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"report.md":    []byte(report(set, plots)),
		"published.md": []byte(published(set)),
		"bench.txt":    bench.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}
