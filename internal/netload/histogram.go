package netload

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest latency that a Histogram tells apart.
const longest = time.Minute

// Histogram holds latencies, with three significant digits from 1 ns to a minute;
// longer ones count as a minute. In JSON it is a string, the base64 of
// HdrHistogram's compressed V2 format, which that project's other tools read.
// It is not safe for concurrent use.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram returns an empty Histogram.
func NewHistogram() *Histogram {
	return &Histogram{hdrhistogram.New(1, int64(longest), 3)}
}

// Record adds a latency. It does not allocate.
func (h *Histogram) Record(d time.Duration) {
	_ = h.h.RecordValue(int64(min(max(d, 1), longest))) // within the range
}

// Merge adds all of other's latencies.
func (h *Histogram) Merge(other *Histogram) { h.h.Merge(other.h) }

// Count returns how many latencies there are.
func (h *Histogram) Count() uint64 { return uint64(h.h.TotalCount()) }

// Percentile returns the latency that p percent (0 to 100) don't exceed; 0 when there is none.
func (h *Histogram) Percentile(p float64) time.Duration {
	return time.Duration(h.h.ValueAtPercentile(p))
}

// Mean returns the mean latency; 0 when there is none.
func (h *Histogram) Mean() time.Duration { return time.Duration(h.h.Mean()) }

// Max returns the longest latency; 0 when there is none.
func (h *Histogram) Max() time.Duration { return time.Duration(h.h.Max()) }

// MarshalText returns the compressed V2 format in base64.
func (h *Histogram) MarshalText() ([]byte, error) {
	b, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	return b, nil
}

// UnmarshalText reads what MarshalText gives. The text is to be from a source
// that is trusted: it says how much memory the histogram takes.
func (h *Histogram) UnmarshalText(text []byte) error {
	read, err := hdrhistogram.Decode(text)
	if err != nil {
		return fmt.Errorf("decode histogram: %w", err)
	}
	h.h = read
	return nil
}
