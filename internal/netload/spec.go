package netload

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what a run does.
type Kind string

// The kinds of runs.
const (
	// TCPStream sends as fast as it can over a connection a flow.
	TCPStream Kind = "tcp_stream"
	// TCPRR sends a message and waits for one of the same size, over a connection a flow.
	TCPRR Kind = "tcp_rr"
	// UDPStream sends datagrams and counts those that arrive.
	UDPStream Kind = "udp_stream"
	// UDPRR sends a datagram and waits for one of the same size.
	UDPRR Kind = "udp_rr"
	// TCPCRR connects, sends a message, waits for one of the same size and for
	// the end of the connection, and closes. The server closes first.
	TCPCRR Kind = "tcp_crr"
)

// Limits of a Spec.
const (
	MaxFlows       = 64
	MaxTCPSize     = 1 << 20
	MaxUDPSize     = 65507
	MinUDPSize     = datagramLen // the header that a datagram has is part of its payload
	MinTCPCRRSize  = headerLen   // likewise
	MaxBytes       = 16 << 20    // size times flows: each flow has a buffer
	MaxDuration    = 5 * time.Minute
	maxRate        = 1e7
	defaultRunTime = 10 * time.Second
)

// ErrSpec is returned when a [Spec] asks for what can't be.
var ErrSpec = errors.New("invalid spec")

// Spec says what one run does.
type Spec struct {
	Kind Kind `json:"kind"`
	// Size is that of a message in bytes: of a write of a stream, of a
	// datagram's payload. Required.
	Size int `json:"size"`
	// Flows run in parallel. Default 1.
	Flows int `json:"flows"`
	// Reverse makes the server of a stream the sender.
	Reverse bool `json:"reverse,omitempty"`
	// Duration is the measured time, in nanoseconds in JSON. Default 10 s.
	// With Count it is the bound instead.
	Duration time.Duration `json:"duration"`
	// Count ends the run after so many messages of each flow. Default 0: after Duration.
	Count int `json:"count,omitempty"`
	// WarmUp is a time of the same load before, which is not measured. Default 0.
	WarmUp time.Duration `json:"warmUp"`
	// Rate bounds a udp_stream to so many datagrams per second of a flow.
	// Default 0: as fast as it can.
	Rate float64 `json:"rate,omitempty"`
}

// Check returns an [ErrSpec] that names what is wrong with s, or nil. Zero
// values with a default are right.
func (s Spec) Check() error {
	s = s.withDefaults()
	for _, c := range []struct {
		bad bool
		msg string
	}{
		{!s.Kind.known(), fmt.Sprintf("kind %q; use tcp_stream, tcp_rr, udp_stream, udp_rr or tcp_crr", s.Kind)},
		{s.Size < s.Kind.minSize() || s.Size > s.Kind.maxSize(), fmt.Sprintf("size %d; a %s takes %d to %d bytes",
			s.Size, s.Kind, s.Kind.minSize(), s.Kind.maxSize())},
		{s.Flows < 1 || s.Flows > MaxFlows, fmt.Sprintf("flows %d; use 1 to %d", s.Flows, MaxFlows)},
		{s.Size*s.Flows > MaxBytes, fmt.Sprintf("size %d times flows %d; use not more than %d together", s.Size, s.Flows, MaxBytes)},
		{s.Reverse && !s.Kind.stream(), fmt.Sprintf("reverse %s; only streams can be reversed", s.Kind)},
		{
			s.Duration < 0 || s.WarmUp < 0 || s.Duration > MaxDuration || s.WarmUp > MaxDuration || s.total() > MaxDuration,
			fmt.Sprintf("duration %s after a warm-up of %s; use not more than %s together", s.Duration, s.WarmUp, MaxDuration),
		},
		{s.Count < 0, fmt.Sprintf("count %d; it is not negative", s.Count)},
		{!(s.Rate >= 0 && s.Rate <= maxRate), fmt.Sprintf("rate %v; use 0 (no bound) to %v datagrams per second", s.Rate, maxRate)},
		{s.Rate > 0 && s.Kind != UDPStream, fmt.Sprintf("rate of a %s; only a udp_stream has one", s.Kind)},
	} {
		if c.bad {
			return fmt.Errorf("%w: %s", ErrSpec, c.msg)
		}
	}
	return nil
}

func (s Spec) withDefaults() Spec {
	if s.Flows == 0 {
		s.Flows = 1
	}
	if s.Duration == 0 {
		s.Duration = defaultRunTime
	}
	return s
}

// total is the time of both phases.
func (s Spec) total() time.Duration { return s.WarmUp + s.Duration }

func (k Kind) known() bool {
	switch k {
	case TCPStream, TCPRR, UDPStream, UDPRR, TCPCRR:
		return true
	}
	return false
}

func (k Kind) udp() bool    { return k == UDPStream || k == UDPRR }
func (k Kind) stream() bool { return k == TCPStream || k == UDPStream }

func (k Kind) minSize() int {
	switch {
	case k.udp():
		return MinUDPSize
	case k == TCPCRR:
		return MinTCPCRRSize
	}
	return 1
}

func (k Kind) maxSize() int {
	if k.udp() {
		return MaxUDPSize
	}
	return MaxTCPSize
}
