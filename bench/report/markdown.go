package main

import (
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// page is a Markdown text.
type page struct{ strings.Builder }

func (p *page) f(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// heading begins a section.
func (p *page) heading(title string) { p.f("\n## %s\n\n", title) }

// table writes a table of figures, if it has rows. The first column is to the left.
func (p *page) table(head []string, rows [][]string) { p.aligned("---:|", head, rows) }

// text writes a table of texts, if it has rows.
func (p *page) text(head []string, rows [][]string) { p.aligned("---|", head, rows) }

func (p *page) aligned(others string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	p.f("| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat(others, len(head)-1))
	for _, row := range rows {
		p.f("| %s |\n", strings.Join(escaped(row), " | "))
	}
	p.f("\n")
}

// escaped keeps what is in cells from ending them.
func escaped(row []string) []string {
	out := make([]string, len(row))
	for i, cell := range row {
		out[i] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(cell)
	}
	return out
}

// ratioTo tells a series' ratio to another, with its interval.
func ratioTo(set *result.Set, of, to result.Ref) string {
	r := set.Ratio(of, to)
	if r.N == 0 {
		return "-"
	}
	return r.String() + " (" + r.Interval() + ")"
}

// median tells a series' median in its unit.
func median(set *result.Set, r result.Ref) string {
	s := set.Summary(r)
	if s.N == 0 {
		return "-"
	}
	return result.Format(r.Metric, s.Median)
}
