package netbench

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// Workload is a load. Streams flow from the server's pod to the client, unless they
// are received.
type Workload struct {
	Kind     netload.Kind
	Received bool // by the server's pod
	Size     int  // bytes of a message
	Flows    int  // at least 1
}

// received is what the name of a workload has whose stream the server's pod receives.
const received = "_rx"

// DefaultWorkloads are measured when none are named.
func DefaultWorkloads() []Workload {
	return []Workload{
		{Kind: netload.TCPRR, Size: 1024, Flows: 1},
		{Kind: netload.TCPStream, Size: 16384, Flows: 1},
		{Kind: netload.UDPStream, Size: 64, Flows: 1},
	}
}

// String returns its name, such as "tcp_stream_rx/16384/flows=4".
func (w Workload) String() string {
	name := string(w.Kind)
	if w.Received {
		name += received
	}
	name += "/" + strconv.Itoa(w.Size)
	if w.Flows > 1 {
		name += "/flows=" + strconv.Itoa(w.Flows)
	}
	return name
}

// ParseWorkload reads what String gives.
func ParseWorkload(s string) (Workload, error) {
	bad := func(why string) (Workload, error) {
		return Workload{}, fmt.Errorf("workload %.64q: %s; give KIND[_rx]/SIZE[/flows=N] such as tcp_rr/1024: %w", s, why, vnic.ErrInvalid)
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return bad("no kind and size")
	}
	w := Workload{Flows: 1}
	kind, rx := strings.CutSuffix(parts[0], received)
	w.Kind, w.Received = netload.Kind(kind), rx
	var err error
	if w.Size, err = strconv.Atoi(parts[1]); err != nil {
		return bad("the size is no number")
	}
	if len(parts) == 3 {
		n, ok := strings.CutPrefix(parts[2], "flows=")
		if w.Flows, err = strconv.Atoi(n); err != nil || !ok || w.Flows < 1 {
			return bad("the flows are no number from 1 on")
		}
	}
	if rx && !streams(w.Kind) {
		return bad("only a stream is received")
	}
	if err := w.spec(MinTime).Check(); err != nil {
		return bad(err.Error())
	}
	return w, nil
}

func streams(k netload.Kind) bool { return k == netload.TCPStream || k == netload.UDPStream }

// warmUpPart is the part of a sample's time that is spent before it.
const warmUpPart = 3

// spec is the load as the client runs it.
func (w Workload) spec(d time.Duration) netload.Spec {
	return netload.Spec{
		Kind: w.Kind, Size: w.Size, Flows: w.Flows, Reverse: streams(w.Kind) && !w.Received,
		Duration: d, WarmUp: d / warmUpPart,
	}
}
