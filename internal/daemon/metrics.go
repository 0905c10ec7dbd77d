package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/metrics"
	"github.com/brfuse/brfuse/internal/tracing"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
)

// telemetry is what tells others how the daemon does. A nil one tells nothing.
type telemetry struct {
	log     *slog.Logger
	metrics *metrics.Metrics // nil: none are served
	at      net.Listener     // where metrics are served
	tracing *tracing.Tracing // nil: no traces are sent
}

// openTelemetry makes what cfg and the environment ask for. Who scrapes waits until serve.
func openTelemetry(ctx context.Context, cfg Config) (*telemetry, error) {
	t := &telemetry{log: cfg.Log}
	name := cfg.Cluster.Hypervisor
	if name == "" {
		name, _ = os.Hostname() // who has none sends traces without it
	}
	var err error
	t.tracing, err = tracing.Start(ctx, tracing.Config{
		Endpoint: cfg.OTLPEndpoint, Getenv: os.Getenv, Hypervisor: name, Version: buildinfo.Version(), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Metrics == "" {
		return t, nil
	}
	if t.at, err = metrics.Listen(ctx, cfg.Metrics); err != nil {
		t.close(ctx)
		return nil, err
	}
	t.metrics = metrics.New(buildinfo.Version())
	return t, nil
}

// observers returns who is to be told of attaches and detaches.
func (t *telemetry) observers() (list []orchestrator.Observer) {
	if t == nil {
		return nil
	}
	if t.tracing != nil {
		list = append(list, t.tracing)
	}
	if t.metrics != nil {
		list = append(list, t.metrics)
	}
	return list
}

// store returns s, measured.
func (t *telemetry) store(s store.Store) store.Store {
	if t == nil || t.metrics == nil {
		return s
	}
	return t.metrics.Store(s)
}

// serve serves metrics of the parts until stop is called, which is before they are closed.
func (t *telemetry) serve(ctx context.Context, address string, p *parts) (stop func(), err error) {
	if t.metrics == nil {
		return func() {}, nil
	}
	asked := metrics.Parts{Orch: p.orch, Host: p.host}
	if p.names != nil {
		asked.Names = p.names
	}
	if p.orch.Hypervisor() != "" {
		asked.Shared = p.store
	}
	if err := t.metrics.Ask(asked); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := t.metrics.Serve(ctx, t.at, t.log); err != nil {
			t.log.Error("metrics are not served any more", "error", err)
		}
	})
	t.log.Info("serving metrics", "address", address)
	return func() {
		cancel()
		serving.Wait()
		t.metrics.Close()
	}, nil
}

// close sends the traces that wait, and closes the listener unless serve has.
func (t *telemetry) close(ctx context.Context) {
	if t.at != nil {
		_ = t.at.Close()
	}
	if err := t.tracing.Close(context.WithoutCancel(ctx)); err != nil {
		t.log.Warn("last traces were not sent", "error", err)
	}
}
