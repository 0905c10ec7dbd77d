package netload

import (
	"encoding/json"
	"time"
)

// Result is what a run measured, of the measured phase only.
type Result struct {
	Spec
	// Elapsed is the measured time, by the clock of the end that Bytes were received
	// at. With Count it lasts until all has arrived; when datagrams got lost, there
	// is some tenths of a second in it in which no more of them came.
	Elapsed time.Duration `json:"elapsed"`
	// Sent counts messages: writes of a stream, requests, connections.
	Sent uint64 `json:"sent"`
	// Received counts messages that arrived within the measured time: datagrams,
	// responses, closed connections; of a tcp_stream, Bytes / Size.
	Received uint64 `json:"received"`
	// Late counts those that arrived after it, having been on the way; of a
	// tcp_stream it is rounded like Received.
	Late uint64 `json:"late,omitempty"`
	// Lost is Sent without Received and Late: datagrams only.
	Lost uint64 `json:"lost"`
	// Bytes of payload were received within the measured time.
	Bytes uint64 `json:"bytes"`
	// Latency is that of tcp_rr, udp_rr and tcp_crr, else nil.
	Latency *Histogram `json:"latency,omitempty"`
	// Local and Remote are what the [Observer] here and the server's saw. Nil without.
	Local  json.RawMessage `json:"local,omitempty"`
	Remote json.RawMessage `json:"remote,omitempty"`
}

// Observer is called before the first message of the measured phase. The
// function that it returns is called once, when the measured time is over, and
// tells what happened between, as JSON of at most 512 KiB. Neither is called in
// a loop that sends or receives. At a server several runs may call it at once.
type Observer func() (stop func() json.RawMessage)

// BytesPerSecond returns the rate of payload received.
func (r Result) BytesPerSecond() float64 { return r.rate(r.Bytes) }

// MessagesPerSecond returns the rate of messages received.
func (r Result) MessagesPerSecond() float64 { return r.rate(r.Received) }

// SentPerSecond returns the rate of messages sent.
func (r Result) SentPerSecond() float64 { return r.rate(r.Sent) }

// Loss returns the fraction of the sent messages that got lost, 0 to 1.
func (r Result) Loss() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost) / float64(r.Sent)
}

// Percentile returns the latency that p percent (0 to 100) of the exchanges
// don't exceed; 0 for a kind without latencies.
func (r Result) Percentile(p float64) time.Duration {
	if r.Latency == nil {
		return 0
	}
	return r.Latency.Percentile(p)
}

func (r Result) rate(n uint64) float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(n) / r.Elapsed.Seconds()
}
