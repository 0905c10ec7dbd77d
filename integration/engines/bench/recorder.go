package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// recorder keeps the samples and writes them to a file, if there is one. The
// first error of add is told by close.
type recorder struct {
	file   *os.File
	enc    *json.Encoder
	round  int                  // the present one
	series map[string][]float64 // in milliseconds, without those of warm-up rounds
	err    error
}

// sample is a line of the file.
type sample struct {
	Series      string        `json:"series"`
	Round       int           `json:"round"` // from 1; those before were to warm up
	Nanoseconds time.Duration `json:"nanoseconds"`
}

func newRecorder(path string) (*recorder, error) {
	r := &recorder{series: map[string][]float64{}}
	if path == "" {
		return r, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	r.file, r.enc = f, json.NewEncoder(f)
	return r, nil
}

func (r *recorder) add(series string, d time.Duration) {
	if err := r.write(sample{series, r.round, d}); err != nil {
		r.err = errors.Join(r.err, err)
	}
	if r.round > 0 {
		r.series[series] = append(r.series[series], d.Seconds()*1e3)
	}
}

// write writes a line.
func (r *recorder) write(v any) error {
	if r.enc == nil {
		return nil
	}
	if err := r.enc.Encode(v); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

func (r *recorder) close() error {
	if r.file == nil {
		return nil
	}
	return errors.Join(r.err, r.file.Close())
}
