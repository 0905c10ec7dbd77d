package result

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Table prints what a run ends with: a table for each rig, of a row for each
// workload and a column for each topology, with medians and ratios to native; then
// goals, cross-checks and what each layer costs, as far as they were measured.
func Table(w io.Writer, s *Set) error {
	var b strings.Builder
	for _, rig := range s.Rigs() {
		s.figures(&b, rig)
		s.instructions(&b, rig)
	}
	findings(&b, "ratio of medians", s.Goals())
	s.crossChecks(&b)
	ablation(&b, s.Ablation())
	if b.Len() == 0 {
		b.WriteString("no samples\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// groups are those of a table's columns: overlays are printed below, beside native
// again.
func (s *Set) groups(rig string) [][]string {
	var plain, overlays []string
	for _, t := range s.Topologies(rig, "") {
		if strings.HasPrefix(t, "overlay-") {
			overlays = append(overlays, t)
			continue
		}
		plain = append(plain, t)
	}
	groups := [][]string{plain}
	if len(overlays) > 0 {
		groups = append(groups, append([]string{Native}, overlays...))
	}
	return groups
}

func (s *Set) figures(b *strings.Builder, rig string) {
	for _, topologies := range s.groups(rig) {
		rows := [][]string{append([]string{rig + ": median, ratio to native", ""}, topologies...)}
		for _, w := range s.Workloads(rig, "") {
			rows = append(rows, s.row(rig, w, w.Headline(), topologies)...)
		}
		grid(b, rows)
	}
}

func (s *Set) instructions(b *strings.Builder, rig string) {
	for _, topologies := range s.groups(rig) {
		rows := [][]string{append([]string{rig + ": guest instructions, ratio to native", ""}, topologies...)}
		for _, w := range s.Workloads(rig, "") {
			rows = append(rows, s.row(rig, w, w.InstructionsOf(), topologies)...)
		}
		grid(b, rows)
	}
}

// row is none when no topology has samples, or native only of several.
func (s *Set) row(rig string, w Workload, metric string, topologies []string) [][]string {
	unit, _ := Unit(metric)
	row := []string{w.Name, unit}
	found := false
	for _, t := range topologies {
		cell := s.cell(rig, t, w.Name, metric)
		found = found || cell != "-" && (t != Native || len(topologies) == 1)
		row = append(row, cell)
	}
	if !found {
		return nil
	}
	return [][]string{row}
}

func (s *Set) cell(rig, topology, workload, metric string) string {
	r := Ref{rig, topology, workload, metric}
	sum := s.Summary(r)
	if sum.N == 0 {
		return "-"
	}
	cell := Format(metric, sum.Median)
	if ratio, ok := s.point(r, Ref{rig, Native, workload, metric}); ok && topology != Native {
		return cell + fmt.Sprintf(" %5.2f", ratio)
	}
	return cell + strings.Repeat(" ", len(" 1.00")+1)
}

// findings leaves out what wasn't measured.
func findings(b *strings.Builder, title string, all []Finding) {
	rows := [][]string{{title, "rig", "ratio", "95 % interval", "goal", ""}}
	for _, f := range all {
		if f.Ratio.N > 0 {
			verdict := strings.Replace(f.Told(), Missed, strings.ToUpper(Missed), 1)
			rows = append(rows, []string{f.Name, f.Of.Rig, f.Ratio.String(), f.Ratio.Interval(), f.Goal(), verdict})
		}
	}
	grid(b, rows)
}

// crossChecks prints those with another generator, those that are missed, and how
// many there are: the report has all.
func (s *Set) crossChecks(b *strings.Builder) {
	var shown []Finding
	met, all := 0, 0
	for _, f := range s.Checks() {
		switch f.Verdict() {
		case Met:
			met++
			all++
		case Missed:
			all++
		}
		if f.Verdict() == Missed || f.Of.Metric != GuestCPU {
			shown = append(shown, f)
		}
	}
	findings(b, "cross-check", shown)
	if all > 0 {
		fmt.Fprintf(b, "%d of %d cross-checks met\n", met, all)
	}
	if met < all {
		b.WriteString("a guest takes for busy the time in which a busy machine didn't run it: measure on an idle one\n")
	}
}

func ablation(b *strings.Builder, all []Ladder) {
	rows := [][]string{{"what each layer adds", "rig", "", "native", "+ veth", "+ bridge", "+ NAT", "nat", "fused"}}
	for _, l := range all {
		unit, _ := Unit(l.Metric)
		if l.Metric == l.Workload.GuestTimeOf() {
			unit = "CPU " + unit
		}
		row := []string{l.Workload.Name, l.Rig, unit, Format(l.Metric, l.Base)}
		for _, rung := range rungs {
			row = append(row, l.cell(rung.topology))
		}
		rows = append(rows, append(row, l.Nested.String(), l.Fused.String()))
	}
	grid(b, rows)
}

func (l Ladder) cell(topology string) string {
	i := slices.IndexFunc(l.Layers, func(layer Layer) bool { return layer.Topology == topology })
	if i < 0 {
		return "-" // it is part of the next one
	}
	return Format(l.Metric, l.Layers[i].Added) + fmt.Sprintf(" %6s", Percent(l.Share(l.Layers[i])))
}

// grid prints rows below a heading, if there are any: the first column to the left,
// the others to the right.
func grid(b *strings.Builder, rows [][]string) {
	if len(rows) < 2 {
		return
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + pad)
				continue
			}
			line.WriteString("  " + pad + cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
