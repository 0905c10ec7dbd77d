// Command testsum reads `go test -json` and prints what a person wants of it:
// a line a package, tests that took long, the output of those that failed or
// were skipped, and how many there were. It exits with code 1 when a test or a
// package failed, or when it read no test at all.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

func run(r io.Reader, w io.Writer) error {
	s := newSummary(w)
	if err := s.read(r); err != nil {
		return err
	}
	return s.finish()
}
