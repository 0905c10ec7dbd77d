package samples

import (
	"fmt"
	"io"
)

// Comparison says what is compared with what.
type Comparison struct {
	Name string `json:"ratio"` // such as "cold attach / raw floor"
	Of   string `json:"of"`    // the series above
	To   string `json:"to"`    // the one below
	// Goal is what the ratio is to be, or less. 0: there is none.
	Goal float64 `json:"goal,omitempty"`
}

// Ratio is what a comparison has found: the ratio of the medians, and the bounds
// of its 95 % confidence interval within the run.
type Ratio struct {
	Comparison
	Value  float64 `json:"value"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Missed bool    `json:"missed"` // it is above the goal
}

func (r Ratio) verdict() (goal, verdict string) {
	switch {
	case r.Goal == 0:
		return "-", ""
	case r.Missed:
		return fmt.Sprintf("%.2f", r.Goal), "  MISSED"
	}
	return fmt.Sprintf("%.2f", r.Goal), "  MET"
}

// Print prints ratios and whether their goals were met, a line each.
func Print(w io.Writer, ratios []Ratio) error {
	_, err := fmt.Fprintf(w, "%-52s%7s%16s%7s\n", "ratio of medians", "ratio", "95 % interval", "goal")
	for _, r := range ratios {
		if err != nil {
			return err
		}
		goal, verdict := r.verdict()
		_, err = fmt.Fprintf(w, "%-52s%7.2f%8.2f to%5.2f%7s%s\n", r.Name, r.Value, r.Low, r.High, goal, verdict)
	}
	return err
}
