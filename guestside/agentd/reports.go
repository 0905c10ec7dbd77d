package agentd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

const (
	// maxReports bounds what waits for the daemon. What does not fit is dropped:
	// when the daemon comes back it asks for everything anyway.
	maxReports  = 1024
	reportLimit = 5 * time.Second // of one try
	reportRetry = time.Second
)

// Reports is a queue of what the daemon is to be told. It never blocks those
// who fill it. The zero value is ready to use; its methods are safe for
// concurrent use.
type Reports struct {
	mu    sync.Mutex // guards what is below
	queue []report
	more  chan struct{} // holds a token when the queue may have grown
}

// reporter is the part of agentv1.HostService that takes reports.
type reporter interface {
	Report(ctx context.Context, req *agentv1.ReportRequest) (*agentv1.ReportResponse, error)
}

type report struct {
	id  vnic.ID // empty when it is not known
	mac vnic.MAC
}

// Returned reports that a pod's namespace died and its vNIC came back.
func (r *Reports) Returned(id vnic.ID, mac vnic.MAC) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := report{id, mac}
	if slices.Contains(r.queue, rep) || len(r.queue) == maxReports {
		return
	}
	r.queue = append(r.queue, rep)
	select {
	case r.tokenLocked() <- struct{}{}:
	default:
	}
}

func (r *Reports) tokenLocked() chan struct{} {
	if r.more == nil {
		r.more = make(chan struct{}, 1)
	}
	return r.more
}

// first returns the oldest report, if there is one, and what to wait for else.
func (r *Reports) first() (rep report, ok bool, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 {
		rep, ok = r.queue[0], true
	}
	return rep, ok, r.tokenLocked()
}

func (r *Reports) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = r.queue[1:]
}

// tell sends what is in the queue, each until it is acknowledged or refused for
// good, until ctx ends. Nobody else may tell meanwhile.
func (r *Reports) tell(ctx context.Context, host reporter, log *slog.Logger) {
	for ctx.Err() == nil {
		rep, ok, more := r.first()
		if !ok {
			select {
			case <-more:
			case <-ctx.Done():
			}
			continue
		}
		err := send(ctx, host, rep)
		if err == nil {
			r.drop()
			log.Info("vnic returned", "id", rep.id, "mac", rep.mac)
			continue
		}
		log.Warn("report vnic", "id", rep.id, "mac", rep.mac, "error", err)
		if errors.Is(err, vnic.ErrInvalid) || errors.Is(err, vnic.ErrUnsupported) {
			r.drop() // refused for good
			continue
		}
		_ = pause(ctx, reportRetry)
	}
}

func send(ctx context.Context, host reporter, rep report) error {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	_, err := host.Report(ctx, &agentv1.ReportRequest{
		Kind: agentv1.ReportRequest_KIND_RETURNED, Id: string(rep.id), Mac: rep.mac.String(),
	})
	return rpcerr.Decode(err)
}
