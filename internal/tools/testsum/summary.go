package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// long is from how many seconds on a test gets a line of its own.
const long = 1.0

// event is a line of `go test -json`: see `go doc test2json`, and for builds
// `go help buildjson`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output, in place of Package
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// summary collects what the tests of one or more `go test` runs have done.
type summary struct {
	w                       io.Writer
	output                  map[string]*strings.Builder // by package and test
	failedIn                map[string]int              // failed tests, by package
	passed, failed, skipped int
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[string]*strings.Builder{}, failedIn: map[string]int{}}
}

// read takes in all lines. One that is no JSON is printed as it is.
func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var ev event
			if json.Unmarshal(line, &ev) == nil && ev.Action != "" {
				s.take(ev)
			} else {
				s.w.Write(line) //nolint:errcheck // nothing else could report it
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (s *summary) take(ev event) {
	key := ev.Package + " " + ev.Test
	switch ev.Action {
	case "output":
		if s.output[key] == nil {
			s.output[key] = &strings.Builder{}
		}
		s.output[key].WriteString(ev.Output)
	case "build-output":
		fmt.Fprint(s.w, ev.Output)
	case "pass", "fail", "skip":
		if ev.Test != "" {
			s.endTest(ev, s.output[key])
		} else {
			s.endPackage(ev, s.output[key])
		}
		delete(s.output, key)
	}
}

func (s *summary) endTest(ev event, output *strings.Builder) {
	verdict := strings.ToUpper(ev.Action)
	switch ev.Action {
	case "pass":
		s.passed++
		if ev.Elapsed < long || strings.Contains(ev.Test, "/") {
			return
		}
	case "fail":
		s.failed++
		s.failedIn[ev.Package]++
	case "skip":
		s.skipped++
	}
	fmt.Fprintf(s.w, "--- %s: %s (%.2f s)\n", verdict, ev.Test, ev.Elapsed)
	if ev.Action != "pass" && output != nil {
		fmt.Fprint(s.w, indent(output.String()))
	}
}

// endPackage prints the line of go test itself, and all of the package's own
// output if it failed by something other than a test.
func (s *summary) endPackage(ev event, output *strings.Builder) {
	var text string
	if output != nil {
		text = output.String()
	}
	if ev.Action == "fail" && s.failedIn[ev.Package] == 0 {
		s.failed++ // it did not build, panicked or ran out of time
		s.flush(ev.Package)
		fmt.Fprint(s.w, text)
		return
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	fmt.Fprintln(s.w, lines[len(lines)-1])
}

// flush prints the output of a package's tests that have not ended.
func (s *summary) flush(pkg string) {
	for key, output := range s.output {
		if rest, ok := strings.CutPrefix(key, pkg+" "); ok && rest != "" {
			fmt.Fprintf(s.w, "--- unfinished: %s\n%s", rest, indent(output.String()))
			delete(s.output, key)
		}
	}
}

// finish prints the closing line.
func (s *summary) finish() error {
	fmt.Fprintf(s.w, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	switch {
	case s.failed > 0:
		return errors.New("tests failed")
	case s.passed+s.skipped == 0:
		return errors.New("no test was run")
	}
	return nil
}

// indent moves lines in by four spaces, without what go test frames them in.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if t := strings.TrimSpace(line); strings.HasPrefix(t, "=== ") || strings.HasPrefix(t, "--- ") {
			continue
		}
		b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}
