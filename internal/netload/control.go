package netload

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// op is a step of a run that the client asks the server for, in this order.
type op string

const (
	opOpen   op = "open"   // Spec: make a run
	opReady  op = "ready"  // which flows are missing?
	opBegin  op = "begin"  // Phase, Measured: counters to zero, observer on
	opGo     op = "go"     // the clock runs; the server sends, if it is the one
	opFinish op = "finish" // wait until the server has sent Count messages
	opDrain  op = "drain"  // Sent: wait until all of it is here
	opEnd    op = "end"    // observer off; stop sending
	opClose  op = "close"  // the run is over
)

// request is a line of the client's.
type request struct {
	Op       op       `json:"op"`
	Version  int      `json:"version,omitempty"`
	Spec     *Spec    `json:"spec,omitempty"`
	Phase    uint8    `json:"phase,omitempty"`
	Measured bool     `json:"measured,omitempty"`
	Sent     []uint64 `json:"sent,omitempty"` // bytes of a tcp_stream, else messages, by flow
}

// reply is the server's line to a request.
type reply struct {
	Error    string          `json:"error,omitempty"`
	Run      runID           `json:"run,omitempty,string"`
	Missing  []int           `json:"missing,omitempty"`
	Elapsed  time.Duration   `json:"elapsed,omitempty"`
	Sent     []uint64        `json:"sent,omitempty"`
	Received uint64          `json:"received,omitempty"`
	Observed json.RawMessage `json:"observed,omitempty"`
}

const (
	version     = 1
	maxRequest  = 8 << 10
	maxReply    = 1 << 20
	maxObserved = 512 << 10
)

var errRequest = errors.New("invalid request")

func parseRequest(line []byte) (request, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return request{}, fmt.Errorf("%w: %w", errRequest, err)
	}
	switch r.Op {
	case opOpen:
		if r.Version != version || r.Spec == nil {
			return request{}, fmt.Errorf("%w: open is of version %d, not %d, or has no spec", errRequest, r.Version, version)
		}
		if err := r.Spec.Check(); err != nil {
			return request{}, err
		}
	case opBegin:
		if r.Phase == 0 {
			return request{}, fmt.Errorf("%w: begin has no phase", errRequest)
		}
	case opDrain:
		if len(r.Sent) > MaxFlows {
			return request{}, fmt.Errorf("%w: drain has %d flows", errRequest, len(r.Sent))
		}
	case opReady, opGo, opFinish, opEnd, opClose:
	default:
		return request{}, fmt.Errorf("%w: op %q", errRequest, r.Op)
	}
	return r, nil
}

// line speaks JSON lines over a socket with deadlines. One goroutine uses it.
type line struct {
	fd       int
	deadline time.Time
	in       *bufio.Reader
}

// newLine reads lines of at most limit bytes.
func newLine(fd, limit int) *line {
	l := &line{fd: fd}
	l.in = bufio.NewReaderSize(l, limit)
	return l
}

// Read reads until the deadline. It is for in.
func (l *line) Read(b []byte) (int, error) {
	if err := l.arm(); err != nil {
		return 0, err
	}
	return readSome(l.fd, b)
}

func (l *line) arm() error {
	left := time.Until(l.deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	return timeout(left)(l.fd)
}

// next returns the next line. It is valid until the one after it.
func (l *line) next(wait time.Duration) ([]byte, error) {
	l.deadline = time.Now().Add(wait)
	b, err := l.in.ReadSlice('\n')
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("read line: it has more than %d bytes", l.in.Size())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("wait %s for a line: %w", wait, err)
	default:
		return nil, fmt.Errorf("read line: %w", err)
	}
}

func (l *line) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	l.deadline = time.Now().Add(stepTimeout)
	if err := l.arm(); err != nil {
		return err
	}
	if err := writeAll(l.fd, append(b, '\n')); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return nil
}
