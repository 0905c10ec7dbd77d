// Package samples has what benchmarks write down, as lines of JSON: each sample,
// what it depended on, and the ratios that were found, with their goals.
package samples

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/brfuse/brfuse/internal/partfile"
	"github.com/brfuse/brfuse/internal/stats"
)

// Sample is one measurement.
type Sample struct {
	Series      string        `json:"series"`
	Round       int           `json:"round"` // from 1; those before were to warm up
	Nanoseconds time.Duration `json:"nanoseconds"`
}

// Recorder keeps samples and writes them to a file, if it has one. It isn't safe
// for concurrent use.
type Recorder struct {
	// Series are the samples so far in milliseconds, without those of rounds to
	// warm up.
	Series map[string][]float64

	file  *partfile.File
	enc   *json.Encoder
	round int
	err   error // the first one of Add
}

// Create returns a Recorder that writes to a new file, as [partfile.File] is one; an
// empty path is none. It is closed when all is written.
func Create(path string) (*Recorder, error) {
	r := &Recorder{Series: map[string][]float64{}}
	if path == "" {
		return r, nil
	}
	f, err := partfile.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create file of samples: %w", err)
	}
	r.file, r.enc = f, json.NewEncoder(f)
	return r, nil
}

// Begin begins a round. They are counted from 1; those up to 0 are to warm up.
func (r *Recorder) Begin(round int) { r.round = round }

// Add adds a sample of the present round. When it can't be written, Close says so.
func (r *Recorder) Add(series string, took time.Duration) {
	if err := r.Write(Sample{series, r.round, took}); err != nil && r.err == nil {
		r.err = err
	}
	if r.round > 0 {
		r.Series[series] = append(r.Series[series], took.Seconds()*1e3)
	}
}

// Write writes a line of something else.
func (r *Recorder) Write(v any) error {
	if r.enc == nil {
		return nil
	}
	if err := r.enc.Encode(v); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

// Close closes the file.
func (r *Recorder) Close() error {
	if r.file == nil {
		return nil
	}
	return errors.Join(r.err, r.file.Close())
}

// Compare returns a ratio of medians, with what it is of, and writes it.
func (r *Recorder) Compare(c Comparison) (Ratio, error) {
	of, to := r.Series[c.Of], r.Series[c.To]
	if len(of) == 0 || len(of) != len(to) {
		return Ratio{}, fmt.Errorf("compare %s with %s: %d and %d samples", c.Of, c.To, len(of), len(to))
	}
	q := stats.RatioOfMedians(of, to)
	if math.IsInf(q.High, 0) || math.IsNaN(q.High) {
		return Ratio{}, fmt.Errorf("compare %s with %s: a median is 0", c.Of, c.To)
	}
	ratio := Ratio{Comparison: c, Value: q.Value, Low: q.Low, High: q.High}
	ratio.Missed = c.Goal > 0 && q.Value > c.Goal
	return ratio, r.Write(ratio)
}
