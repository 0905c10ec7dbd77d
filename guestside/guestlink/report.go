package guestlink

import (
	"context"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/internal/wire"
	"github.com/brfuse/brfuse/vnic"
)

const (
	// maxReports is how many calls of one agent are served beside maxOrders, so that
	// its reports get through.
	maxReports = 8
	// An agent may report reportBurst events at once, and then one every
	// reportEvery: more than any number of dying pods needs.
	reportBurst = 1024
	reportEvery = 20 * time.Millisecond
)

// host serves one session's agent.
type host struct {
	vm      string
	onEvent func(vnic.Event)
	orders  Orders        // nil: none are taken
	turns   *turns        // of the VM's orders, which may outlive the session
	ended   chan struct{} // closed by shut

	mu     sync.Mutex    // held while an event is told, guards what is below
	up     chan struct{} // closed when the session was announced
	down   bool          // the session has ended
	tokens int
	filled time.Time
}

func newHost(vm string, onEvent func(vnic.Event)) *host {
	return &host{
		vm: vm, onEvent: onEvent, turns: newTurns(), ended: make(chan struct{}),
		up: make(chan struct{}), tokens: reportBurst, filled: time.Now(),
	}
}

func (h *host) open() { close(h.up) }

// shut waits for the event that is being told; no other follows. Orders that are
// under way are no longer waited for.
func (h *host) shut() {
	close(h.ended)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
}

// Report implements the agent's way of telling. The VM is the session's.
func (h *host) Report(ctx context.Context, req *agentv1.ReportRequest) (*agentv1.ReportResponse, error) {
	ev := vnic.Event{VM: h.vm}
	var err error
	switch req.GetKind() {
	case agentv1.ReportRequest_KIND_RETURNED:
		ev.Kind = vnic.EventReturned
	default:
		return nil, rpcerr.Encode(fmt.Errorf("report of kind %d: %w", req.GetKind(), vnic.ErrUnsupported))
	}
	if req.GetId() != "" { // an agent may not know the attachment any more
		if ev.ID, err = vnic.ParseID(req.GetId()); err != nil {
			return nil, rpcerr.Encode(err)
		}
	}
	if ev.MAC, err = vnic.ParseMAC(req.GetMac()); err != nil {
		return nil, rpcerr.Encode(err)
	}
	select {
	case <-h.up:
	case <-ctx.Done():
		return nil, rpcerr.Encode(ctx.Err())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, rpcerr.Encode(wire.ErrClosed)
	}
	if !h.tokenLocked() {
		return nil, rpcerr.Encode(fmt.Errorf("more than %d reports at once, try again later: %w", reportBurst, vnic.ErrInUse))
	}
	h.onEvent(ev)
	return &agentv1.ReportResponse{}, nil
}

func (h *host) tokenLocked() bool {
	if n := int(time.Since(h.filled) / reportEvery); n > 0 {
		h.tokens = min(reportBurst, h.tokens+n)
		h.filled = h.filled.Add(time.Duration(n) * reportEvery)
	}
	if h.tokens == 0 {
		return false
	}
	h.tokens--
	return true
}
